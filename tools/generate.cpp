#include <cstdio>

#include "schedulers/scheduler.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/generate_images.h"

namespace prefusion::tools {
namespace {

struct GenerateCommand : CommonOptions {
  GenerateImagesOptions images;
};

std::string scheduler_help() {
  std::string text = "Sampler: auto (the model's own)";
  for (const auto& entry : schedulers::scheduler_entries()) {
    text += std::string("; ") + entry.name + " (" + entry.description + ")";
  }
  return text;
}

void add_options(CLI::App& app, GenerateCommand& command) {
  auto& o = command.images;
  auto& s = o.sampling;
  app.add_option("--model", o.model, "Model folder in diffusers layout (StableDiffusionPipeline)")->required();
  auto* prompt = app.add_option("--prompt", o.prompt, "Text of one prompt");
  app.add_option("--prompts", o.prompts_file,
                 "File of prompts: .txt with one a line, or .jsonl with 'prompt' and perhaps 'negative_prompt', 'seed'")
      ->excludes(prompt);
  app.add_option("--negative-prompt", o.negative_prompt, "What the pictures should be guided away from");
  app.add_option("--num-images", o.num_images, "Pictures a prompt; picture i has seed SEED + i")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option("--steps", s.num_inference_steps, "Sampling steps")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option("--guidance-scale", s.guidance.scale, "Classifier-free guidance; 1 or less is none")
      ->capture_default_str();
  app.add_option("--guidance-rescale", s.guidance.rescale, "Share of the unguided spread to restore (arXiv 2305.08891)")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--scheduler", s.scheduler, scheduler_help())->capture_default_str();
  app.add_option("--eta", s.eta, "Noise of the ddim sampler: 0 none, 1 as ddpm")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--height", s.height_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--width", s.width_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--lora", o.loras, "LoRA file or folder, with its weight: PATH[:SCALE]; repeatable, they add up")
      ->allow_extra_args(false);
  app.add_option("--user-adapter", o.user_adapter, "Adapter that knows users, with its weight: PATH[:SCALE]");
  app.add_option("--user", o.user,
                 "Whom the pictures are for: ID of the adapter's users, or a mixture ID[:WEIGHT],ID[:WEIGHT],...; "
                 "without, nobody in particular");
  app.add_option("--clip-skip", o.clip_skip, "Last layers of the text encoder to leave out")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  app.add_option("--batch-size", o.batch_size, "Pictures at a time; no influence on them")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option("--output", o.output, "FILE.png for a single picture, else a folder")->required();
  app.add_option("--contact-sheet", o.contact_sheet, "FILE.png that gets all pictures with their prompts");
  app.add_flag("--resume", o.resume, "Keep pictures in --output that were made with the same settings");
}

void run(const GenerateCommand& command, const CLI::App&) {
  GenerateImagesOptions options = command.images;
  options.seed = command.seed;
  options.shows_progress = !command.quiet;
  options.device = command.torch_device();
  options.dtype = command.scalar_type();
  for (const auto& file : generate_images(options)) std::printf("%s\n", file.c_str());
}

}  // namespace

void add_generate(CLI::App& root) {
  add_command<GenerateCommand>(root, "generate", "Makes pictures from prompts", add_options, run);
}

}  // namespace prefusion::tools

#include <charconv>
#include <cstdio>

#include "core/error.h"
#include "schedulers/scheduler.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/generate_images.h"

namespace prefusion::tools {
namespace {

struct GenerateCommand : CommonOptions {
  GenerateImagesOptions images;
  std::string prompt_syntax = "plain";
  std::string long_prompts = "truncate";
  std::string tiling = "auto";
  std::string shard = "0/1";
  std::string guidance_interval = "0,1";
};

pipelines::GuidanceInterval parse_interval(const std::string& text) {
  pipelines::GuidanceInterval interval;
  const size_t comma = text.find(',');
  const auto parse = [&](std::string_view part, double& value) {
    const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), value);
    return code == std::errc() && end == part.data() + part.size();
  };
  const std::string_view view = text;
  check_usage(comma != std::string::npos && parse(view.substr(0, comma), interval.begin) &&
                  parse(view.substr(comma + 1), interval.end),
              "--guidance-interval ", text, ": expected LOW,HIGH between 0 and 1, as in 0.2,0.8");
  return interval;
}

std::string scheduler_help() {
  std::string text = "Sampler: auto (the model's own)";
  for (const auto& entry : schedulers::scheduler_entries()) {
    text += std::string("; ") + entry.name + " (" + entry.description + ")";
  }
  return text;
}

void add_prompt_options(CLI::App& app, GenerateCommand& command) {
  auto& o = command.images;
  auto* prompt = app.add_option("--prompt", o.prompt, "Text of one prompt");
  app.add_option("--prompts", o.prompts_file,
                 "File of prompts: .txt with one a line, or .jsonl with 'prompt' and perhaps 'negative_prompt', 'seed'")
      ->excludes(prompt);
  app.add_option("--negative-prompt", o.negative_prompt, "What the pictures should be guided away from");
  app.add_option("--prompt-syntax", command.prompt_syntax,
                 "plain: brackets are text; weighted: (words) count 1.1 times, (words:1.3) 1.3 times, [words] 1 / 1.1 "
                 "times, \\( is a bracket (Stable Diffusion 1.x, 2.x, SDXL)")
      ->capture_default_str()
      ->check(CLI::IsMember({"plain", "weighted"}));
  app.add_option("--long-prompts", command.long_prompts,
                 "Of more tokens than CLIP reads at once (75): truncate, or chunk, which encodes one piece after the "
                 "other. segments: every prompt sentence by sentence, in 240 states, for models trained so (LongAlign, "
                 "arXiv 2410.11817). Both for Stable Diffusion 1.x, 2.x, SDXL")
      ->capture_default_str()
      ->check(CLI::IsMember({"truncate", "chunk", "segments"}));
  app.add_option("--clip-skip", o.text.clip_skip, "Last layers of the text encoder to leave out")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
}

void add_guidance_options(CLI::App& app, GenerateCommand& command) {
  auto& guidance = command.images.sampling.guidance;
  app.add_option("--guidance-scale", guidance.scale, "Classifier-free guidance; 1 or less is none")
      ->capture_default_str();
  app.add_option("--guidance-rescale", guidance.rescale, "Share of the unguided spread to restore (arXiv 2305.08891)")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option(
         "--guidance-interval", command.guidance_interval,
         "LOW,HIGH: guide only in this part of the steps, 0 the first (most noise), 1 the last (arXiv 2404.07724); "
         "the other steps cost half")
      ->default_str("0,1");
  app.add_option("--guidance-mimic", guidance.mimic_scale,
                 "Dynamic thresholding: latents keep the range they have at this scale, say 7, so that a high "
                 "--guidance-scale does not burn out; 0 is off")
      ->capture_default_str();
  app.add_option("--guidance-percentile", guidance.mimic_percentile,
                 "Share of the pixels that --guidance-mimic fits into the range; the rest is clipped")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
}

void add_sampling_options(CLI::App& app, GenerateCommand& command) {
  auto& o = command.images;
  auto& s = o.sampling;
  app.add_option("--num-images", o.num_images, "Pictures a prompt; picture i has seed SEED + i")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option("--steps", s.num_inference_steps, "Sampling steps")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  add_guidance_options(app, command);
  app.add_option("--scheduler", s.scheduler, scheduler_help())->capture_default_str();
  app.add_option("--eta", s.eta, "Noise of the ddim sampler: 0 none, 1 as ddpm")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--height", s.height_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--width", s.width_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
}

void add_start_options(CLI::App& app, StartPictureOptions& start) {
  app.add_option(
      "--init-image", start.init_image,
      "Picture to start from instead of noise (JPEG, PNG or WebP). Without --height and --width the result has "
      "its size, rounded down to a multiple of 8; with them, with a mask, and for SD3 and FLUX, it is resized "
      "to the result's, distorted where the shapes differ");
  app.add_option("--strength", start.strength,
                 "Share of the steps that are made from --init-image, above 0 to 1: how much it changes; default 0.8, "
                 "with --mask-image 1")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--mask-image", start.mask_image,
                 "Picture of what is to be repainted in --init-image: white is, black stays");
}

void add_adapter_options(CLI::App& app, GenerateImagesOptions& o) {
  app.add_option("--lora", o.loras, "LoRA file or folder, with its weight: PATH[:SCALE]; repeatable, they add up")
      ->allow_extra_args(false);
  app.add_option("--negative-lora", o.negative_loras,
                 "LoRA for the negative side of guidance, in place of --lora: PATH[:SCALE]; repeatable. One trained on "
                 "swapped preferences is what to guide away from (Diffusion-NPO, arXiv 2505.11245)")
      ->allow_extra_args(false);
  app.add_option("--base", o.base, "Model folder that --model was trained from, for --alignment-strength");
  app.add_option("--alignment-strength", o.alignment_strength,
                 "Weights are base + X (model - base): 0 the base, 1 the model, more beyond it")
      ->capture_default_str();
  app.add_option("--user-adapter", o.user_adapter, "Adapter that knows users, with its weight: PATH[:SCALE]");
  app.add_option("--user", o.user,
                 "Whom the pictures are for: ID of the adapter's users, or a mixture ID[:WEIGHT],ID[:WEIGHT],...; "
                 "without, nobody in particular");
}

void add_output_options(CLI::App& app, GenerateCommand& command) {
  auto& o = command.images;
  app.add_option("--batch-size", o.batch_size, "Pictures at a time; no influence on them")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option("--output", o.output, "FILE.png for a single picture, else a folder")->required();
  app.add_option("--contact-sheet", o.contact_sheet, "FILE.png that gets all pictures with their prompts");
  app.add_flag("--resume", o.resume, "Keep pictures in --output that were made with the same settings");
  app.add_option("--shard", command.shard,
                 "I/N: the I-th of N parts of the prompts, from 0; N processes fill one --output together")
      ->default_str("0/1");
  app.add_option("--preview", o.preview.file, "FILE.png that shows the batch in the making, replaced as it goes on");
  app.add_option("--preview-every", o.preview.every, "Denoiser calls between previews; each costs a decoding")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option(
      "--preview-vae", o.preview.decoder,
      "Folder of an AutoencoderTiny (TAESD), which draws previews in a fraction of the time of the model's own "
      "autoencoder");
}

void add_options(CLI::App& app, GenerateCommand& command) {
  app.add_option("--model", command.images.model, "Model folder in diffusers layout (docs/models.md)")->required();
  app.add_flag("--stream-weights", command.images.streams_weights,
               "Keep the weights of the denoiser's and T5's blocks in host memory and bring each layer's to the device "
               "when it is its turn: slower, for models that do not fit (docs/memory.md)");
  app.add_flag(
      "--cuda-graph", command.images.uses_cuda_graphs,
      "Record the denoiser's pass once and replay it as one launch: for small pictures and small batches, where "
      "the host is slower than the GPU");
  app.add_option("--vae-tiling", command.tiling,
                 "Encode and decode pictures in overlapping tiles, which bounds the memory it takes: auto (from 2048 x "
                 "2048 pixels on), on, off")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "on", "off"}));
  add_prompt_options(app, command);
  add_sampling_options(app, command);
  add_start_options(app, command.images.start);
  add_adapter_options(app, command.images);
  add_output_options(app, command);
  app.footer(
      "Example: prefusion generate --model assets/shapes --prompt 'a red circle left of a blue square' --num-images 4 "
      "--output pictures");
}

void run(const GenerateCommand& command, const CLI::App&) {
  GenerateImagesOptions options = command.images;
  options.seed = command.seed;
  using text::PromptSyntax;
  options.text.syntax = command.prompt_syntax == "weighted" ? PromptSyntax::kWeighted : PromptSyntax::kPlain;
  options.text.long_prompts = text::parse_long_prompts(command.long_prompts);
  options.tiling = vae::parse_tiling(command.tiling, "--vae-tiling");
  options.shard = parse_shard(command.shard);
  options.sampling.guidance.interval = parse_interval(command.guidance_interval);
  options.shows_progress = !command.quiet;
  options.device = command.torch_device();
  options.dtype = command.scalar_type();
  for (const auto& file : generate_images(options)) std::printf("%s\n", file.c_str());
}

}  // namespace

void add_generate(CLI::App& root) {
  add_command<GenerateCommand>(root, "generate", "Makes pictures from prompts, or from pictures", add_options, run);
}

}  // namespace prefusion::tools

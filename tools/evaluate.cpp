#include <cstdio>

#include "core/logging.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/evaluate_models.h"
#include "tools/evaluation_report.h"

namespace prefusion::tools {
namespace {

struct EvaluateCommand : CommonOptions {
  EvaluateOptions evaluate;
};

void add_options(CLI::App& app, EvaluateCommand& command) {
  auto& o = command.evaluate;
  auto& s = o.batches.sampling;
  app.add_option("--model", o.model, "Model folder in diffusers layout that should have become better")->required();
  app.add_option("--baseline", o.baseline, "Model folder it is compared with")->required();
  app.add_option("--lora", o.loras, "LoRA on the model, with its weight: PATH[:SCALE]; repeatable")
      ->allow_extra_args(false);
  app.add_option("--baseline-lora", o.baseline_loras, "LoRA on the baseline, likewise")->allow_extra_args(false);
  auto* prompts = app.add_option("--prompts", o.prompts_file, "File of prompts: .txt with one a line, or .jsonl");
  app.add_option("--held-out", o.held_out, "Instead: so many captions of the shapes world that no training has seen")
      ->check(CLI::PositiveNumber)
      ->excludes(prompts);
  app.add_option("--negative-prompt", o.negative_prompt, "What the pictures should be guided away from");
  app.add_option("--reward", o.reward, "Judge of the pictures: shapes (docs/shapes.md)")->capture_default_str();
  app.add_option("--margin", o.margin, "Score difference below which two pictures tie")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--num-images", o.num_images, "Pictures a prompt and model")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--steps", s.num_inference_steps, "Sampling steps")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--guidance-scale", s.guidance.scale, "Classifier-free guidance; 1 or less is none")
      ->capture_default_str();
  app.add_option("--scheduler", s.scheduler, "Sampler as in prefusion generate; auto is the model's own")
      ->capture_default_str();
  app.add_option("--height", s.height_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--width", s.width_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--batch-size", o.batches.batch_size, "Pictures at a time")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--run", o.run, "Output folder of prefusion align, for its curves in the report");
  app.add_flag("--save-pictures", o.save_pictures, "Also write every picture, OUTPUT/pictures/");
  app.add_option("--output", o.output, "Folder for report.html, summary.json, results.jsonl and grids")->required();
  app.footer(
      "Example:\n"
      "  prefusion evaluate --model assets/shapes --lora run --baseline assets/shapes --held-out 300 --steps 15 \\\n"
      "      --scheduler dpm++ --guidance-scale 3 --output run/evaluation --run run");
}

void run(const EvaluateCommand& command, const CLI::App&) {
  EvaluateOptions options = command.evaluate;
  options.seed = command.seed;
  options.shows_progress = !command.quiet;
  options.device = command.torch_device();
  options.dtype = command.scalar_type();
  const Evaluation evaluation = evaluate_models(options);
  write_evaluation(options, evaluation);
  std::printf("%s", training::summary_table(evaluation.summary).c_str());
  log_info("report: ", (options.output / "report.html").string());
}

}  // namespace

void add_evaluate(CLI::App& root) {
  add_command<EvaluateCommand>(root, "evaluate", "Measures whether a model became better than a baseline", add_options,
                               run);
}

}  // namespace prefusion::tools

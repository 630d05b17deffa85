#include <cstdio>

#include "core/error.h"
#include "core/logging.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/evaluate_models.h"
#include "tools/evaluation_report.h"

namespace prefusion::tools {
namespace {

struct EvaluateCommand : CommonOptions {
  EvaluateOptions evaluate;
  std::vector<std::string> models;  // parse_contender
  std::vector<std::string> loras;   // on every model
  std::string user_adapter, user;   // likewise
};

void add_options(CLI::App& app, EvaluateCommand& command) {
  auto& o = command.evaluate;
  auto& s = o.batches.sampling;
  app.add_option("--model", command.models,
                 "Model folder in diffusers layout that should have become better, DIR, or with adapters of its own, "
                 "DIR+LORA[:SCALE]; repeatable: all are compared with the same baseline")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--baseline", o.baseline, "Model folder it is compared with")->required();
  app.add_option("--lora", command.loras, "LoRA on every --model, with its weight: PATH[:SCALE]; repeatable")
      ->allow_extra_args(false);
  app.add_option("--baseline-lora", o.baseline_loras, "LoRA on the baseline, likewise")->allow_extra_args(false);
  app.add_option("--user-adapter", command.user_adapter,
                 "Adapter that knows users (objective ppd) on every --model, with its weight: PATH[:SCALE]");
  app.add_option("--user", command.user,
                 "Whom the pictures of every --model are for: ID of the adapter's users, or a mixture "
                 "ID[:WEIGHT],ID[:WEIGHT],...; without, nobody in particular");
  auto* prompts = app.add_option("--prompts", o.prompts_file, "File of prompts: .txt with one a line, or .jsonl");
  app.add_option("--held-out", o.held_out, "Instead: so many captions of the shapes world that no training has seen")
      ->check(CLI::PositiveNumber)
      ->excludes(prompts);
  app.add_option("--negative-prompt", o.negative_prompt, "What the pictures should be guided away from");
  app.add_option("--reward", o.rewards,
                 "Judge of the pictures: shapes (docs/shapes.md), or KIND=PATH of a reward model (docs/rewards.md); "
                 "repeatable: of two pictures the one wins that more models prefer")
      ->capture_default_str()
      ->allow_extra_args(false);
  app.add_option("--reward-args", o.reward_arguments, "Arguments of a reward model, COLUMN.NAME=VALUE; repeatable")
      ->allow_extra_args(false);
  app.add_option("--margin", o.margin,
                 "Score difference up to which two pictures tie; 0.05 for shapes and 0 for reward models if not given")
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
  app.add_option("--preference-data", o.preferences.data,
                 "Labelled pairs, as --data of align: how often the implicit reward (the model's errors against the "
                 "baseline's, averaged over timesteps) agrees with the labels");
  app.add_option("--preference-pairs", o.preferences.num_pairs, "At most so many of them")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--preference-timesteps", o.preferences.num_timesteps, "Timesteps that are averaged over")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--run", o.run, "Output folder of prefusion align, for its curves in the report");
  app.add_flag("--save-pictures", o.save_pictures, "Also write every picture, OUTPUT/pictures/");
  app.add_option(
         "--output", o.output,
         "Folder for report.html, summary.json, results.jsonl and grids; with several models a folder in it for each")
      ->required();
  app.footer(
      "Example:\n"
      "  prefusion evaluate --model assets/shapes --lora run --baseline assets/shapes --held-out 300 --steps 15 \\\n"
      "      --scheduler dpm++ --guidance-scale 3 --output run/evaluation --run run\n"
      "  prefusion evaluate --model assets/shapes+run-dpo --model assets/shapes+run-mapo --baseline assets/shapes \\\n"
      "      --held-out 300 --output comparison\n"
      "  prefusion evaluate --model assets/shapes --user-adapter run/user_adapter.safetensors --user anna \\\n"
      "      --baseline assets/shapes --held-out 300 --output run/for-anna");
}

// A model at a time, so that the pictures of one are all that is kept besides the baseline's.
void compare_several(const EvaluateOptions& options) {
  const ModelComparison comparison(options);
  std::vector<ComparedModel> compared;
  for (size_t i = 0; i < options.models.size(); ++i) {
    const Evaluation evaluation = comparison.compare(i);
    write_evaluation(options, evaluation, options.output / evaluation.name);
    compared.push_back({evaluation.name, evaluation.summary});
    write_overview(options, compared);
  }
  std::printf("%s", overview_table(compared).c_str());
}

void compare_one(const EvaluateOptions& options) {
  const Evaluation evaluation = ModelComparison(options).compare(0);
  write_evaluation(options, evaluation, options.output);
  std::printf("%s", training::summary_table(evaluation.summary).c_str());
}

void run(const EvaluateCommand& command, const CLI::App&) {
  EvaluateOptions options = command.evaluate;
  options.seed = command.seed;
  options.shows_progress = !command.quiet;
  options.device = command.torch_device();
  options.dtype = command.scalar_type();
  for (const std::string& text : command.models) {
    Contender model = parse_contender(text);
    model.loras.insert(model.loras.begin(), command.loras.begin(), command.loras.end());
    model.user_adapter = command.user_adapter;
    model.user = command.user;
    options.models.push_back(std::move(model));
  }
  const bool is_several = options.models.size() > 1;
  check_usage(!is_several || options.run.empty(), "--run shows the curves of one run, but there are ",
              options.models.size(), " models");
  if (is_several) {
    compare_several(options);
  } else {
    compare_one(options);
  }
  log_info("report: ", (options.output / "report.html").string());
}

}  // namespace

void add_evaluate(CLI::App& root) {
  add_command<EvaluateCommand>(root, "evaluate", "Measures whether a model became better than a baseline", add_options,
                               run);
}

}  // namespace prefusion::tools

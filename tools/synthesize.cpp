#include <cstdio>

#include "core/error.h"
#include "core/logging.h"
#include "reward_models/ensemble.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/synthesis.h"

namespace prefusion::tools {
namespace {

struct SynthesizeCommand : CommonOptions {
  SynthesizeOptions synthesize;
  std::vector<std::string> models;  // parse_contender
  std::vector<std::string> rewards, reward_arguments;
  std::vector<std::string> prunes;  // parse_prune_rule
  std::string shard;                // parse_shard; empty: all
};

std::string aggregate_help() {
  std::string text = "How the rewards rank the pictures of a list:";
  const char* separator = " ";
  for (const auto& kind : reward_models::aggregate_kinds()) {
    text += std::string(separator) + kind.name + " (" + kind.summary + ")";
    separator = "; ";
  }
  return text;
}

void add_picture_options(CLI::App& app, SynthesizeCommand& command) {
  auto& o = command.synthesize;
  auto& s = o.batches.sampling;
  const CLI::Range whole(int64_t{1}, int64_t{1'000'000});
  app.add_option("--model", command.models,
                 "Model folder in diffusers layout, DIR, or with adapters, DIR+LORA[:SCALE]; repeatable: all give "
                 "pictures to every list")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--prompts", o.prompts_file,
                 "File of prompts: .txt with one a line, or .jsonl with 'prompt' and perhaps 'negative_prompt', 'seed'")
      ->required();
  app.add_option("--per-model,--keep-best", o.per_model, "Pictures of a prompt and model in the list")
      ->capture_default_str()
      ->check(whole);
  app.add_option("--candidates", o.candidates,
                 "Pictures made of a prompt and model, of which the best --per-model are kept; 0: no more than those")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1'000'000}));
  app.add_option("--prune-at", command.prunes,
                 "STEP[:SHARE]: after so many denoiser calls the candidates are scored as they would come out, and the "
                 "weaker share of them, default 0.5, is dropped; repeatable, in ascending order")
      ->allow_extra_args(false);
  app.add_flag("--prune-check", o.checks_pruning,
               "Also makes what pruning drops, and says how often the best picture would have been another");
  app.add_option("--negative-prompt", o.negative_prompt, "What the pictures should be guided away from");
  app.add_option("--steps", s.num_inference_steps, "Sampling steps")->capture_default_str()->check(whole);
  app.add_option("--guidance-scale", s.guidance.scale, "Classifier-free guidance; 1 or less is none")
      ->capture_default_str();
  app.add_option("--guidance-rescale", s.guidance.rescale, "Share of the unguided spread to restore (arXiv 2305.08891)")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--scheduler", s.scheduler, "Sampler as in prefusion generate; auto is the model's own")
      ->capture_default_str();
  app.add_option("--eta", s.eta, "Noise of the ddim sampler: 0 none, 1 as ddpm")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--height", s.height_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--width", s.width_px, "Pixels, a multiple of 8; 0 is the model's own size")->capture_default_str();
  app.add_option("--batch-size", o.batches.batch_size, "Pictures at a time")->capture_default_str()->check(whole);
}

void add_ranking_options(CLI::App& app, SynthesizeCommand& command) {
  auto& o = command.synthesize;
  app.add_option("--reward", command.rewards,
                 "Reward model that scores the pictures, KIND=PATH as in prefusion score, or KIND/NAME=PATH for a kind "
                 "that is used twice; repeatable")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--reward-args", command.reward_arguments, "Arguments of a reward: COLUMN.NAME=VALUE; repeatable")
      ->allow_extra_args(false);
  app.add_option("--aggregate", o.aggregate, aggregate_help())->capture_default_str();
  app.add_option("--reward-weights", o.weights,
                 "Weight of a reward in the aggregate, COLUMN=WEIGHT; repeatable, 1 where none is given")
      ->allow_extra_args(false);
  app.add_option("--score-statistics", o.statistics_file,
                 "Means and deviations for z-scores: the --summary of an earlier run; without, those of this run");
  app.add_option("--judgements", o.judgements_file,
                 "JSONL of what people or vision-language models said of the pictures (docs/synthesize.md): one more "
                 "reward, called judgement, where every picture of a list was judged");
}

void add_output_options(CLI::App& app, SynthesizeCommand& command) {
  auto& o = command.synthesize;
  app.add_option("--output", o.output, "DATASET.parquet: a ranked list a prompt; appears when it is whole")->required();
  app.add_option("--image-format", o.image_format, "png (lossless), jpeg or webp; what is stored is what is scored")
      ->capture_default_str()
      ->check(CLI::IsMember({"png", "jpeg", "webp"}));
  app.add_option("--image-quality", o.image_quality, "Of jpeg and webp, 1-100")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  app.add_option("--summary", o.summary_file,
                 "FILE.json with the numbers that are printed, and statistics of the scores");
  app.add_option("--block-size", o.block_size, "Prompts between two saves: what a killed run loses at most")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  app.add_option("--shard", command.shard,
                 "I/N: the I-th of N consecutive parts of the prompts, I from 0; pictures are those of a run over all");
  app.add_flag("--resume", o.resumes, "Go on with what an interrupted run of the same settings has made");
  app.add_option("--journal", o.journal, "Folder for pictures until the output is written; default OUTPUT.journal");
  app.add_flag("--keep-journal", o.keeps_journal,
               "Leave it there, so that --resume can rank the same pictures again in another way");
}

void add_options(CLI::App& app, SynthesizeCommand& command) {
  add_picture_options(app, command);
  add_ranking_options(app, command);
  add_output_options(app, command);
  app.footer(
      "Example:\n"
      "  prefusion synthesize --model assets/shapes --prompts examples/shapes_prompts.txt --per-model 4 \\\n"
      "      --reward shapes --steps 15 --scheduler dpm++ --guidance-scale 3 --output lists.parquet\n"
      "  prefusion align --model assets/shapes --data lists.parquet --objective rankdpo --output run");
}

void run(const SynthesizeCommand& command, const CLI::App&) {
  SynthesizeOptions options = command.synthesize;
  options.seed = command.seed;
  options.shows_progress = !command.quiet;
  options.device = command.torch_device();
  options.dtype = command.scalar_type();
  for (const std::string& text : command.models) options.models.push_back(parse_contender(text));
  options.rewards = reward_models::parse_reward_specs(command.rewards, command.reward_arguments);
  for (const std::string& text : command.prunes) options.prunes.push_back(parse_prune_rule(text));
  if (!command.shard.empty()) options.shard = parse_shard(command.shard);
  const std::optional<ListsSummary> summary = synthesize(options);
  if (summary) std::printf("%s", summary_text(*summary).c_str());
}

}  // namespace

void add_synthesize(CLI::App& root) {
  add_command<SynthesizeCommand>(root, "synthesize", "Makes ranked lists of pictures under reward models", add_options,
                                 run);
}

}  // namespace prefusion::tools

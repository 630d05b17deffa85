#include <cstdio>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/contender.h"
#include "tools/prompt_candidates.h"
#include "tools/prompt_contest.h"
#include "tools/prompt_duels.h"
#include "tools/prompt_judge.h"
#include "tools/text_embedder.h"
#include "training/run_fingerprint.h"

namespace prefusion::tools {
namespace {

namespace fs = std::filesystem;

struct OptimizePromptCommand : CommonOptions {
  CandidateSource source;
  fs::path output;
  fs::path duels_file;  // empty: OUTPUT/duels.jsonl
  fs::path text_encoder;
  reward_models::BanditOptions bandit;
  int64_t num_duels = 30;
  bool asks = false;
  std::vector<std::string> rewards, reward_arguments;
  PromptJudgeOptions judge;

  fs::path duels_path() const { return duels_file.empty() ? output / "duels.jsonl" : duels_file; }
};

// Verdicts of other rewards, seeds or samplers do not belong into one file.
void check_settings(const OptimizePromptCommand& command) {
  const fs::path path = command.output / "settings.json";
  const Json now = command.judge.settings();
  if (fs::exists(path) && fs::exists(command.duels_path())) {
    const std::string changes = training::changed_keys(read_json(path), now);
    check_usage(changes.empty(), command.output.string(), ": holds duels that were judged otherwise: ", changes,
                "; choose another --output");
  }
  write_file(path, now.dump(2) + "\n");
}

void validate(const OptimizePromptCommand& c) {
  check_usage(c.source.candidates.empty() != c.source.prompt.empty(),
              "give prompts to choose from: --candidates FILE, or --prompt TEXT with --modifiers FILE");
  check_usage(c.source.prompt.empty() == c.source.modifiers.empty(), "--prompt and --modifiers go together");
  check_usage(!c.asks || c.rewards.empty(), "--ask and --reward exclude each other");
  check_usage(c.rewards.empty() || !c.judge.model.empty(), "--reward needs --model, which draws what it judges");
  check_usage(c.judge.intent.empty() || !c.rewards.empty(), "--intent is for --reward");
}

fs::path text_encoder(const OptimizePromptCommand& command) {
  if (!command.text_encoder.empty() || command.judge.model.empty()) return command.text_encoder;
  return parse_contender(command.judge.model).model;
}

void run(const OptimizePromptCommand& given, const CLI::App&) {
  OptimizePromptCommand command = given;
  validate(command);
  PromptJudgeOptions& judging = command.judge;
  judging.rewards = reward_models::parse_reward_specs(command.rewards, command.reward_arguments);
  judging.seed = command.seed;
  judging.device = command.torch_device();
  judging.dtype = command.scalar_type();
  if (!command.rewards.empty() && judging.intent.empty()) judging.intent = command.source.prompt;

  const std::vector<std::string> prompts = read_candidates(command.source);
  const at::Tensor features = embed_texts(prompts, {.text_encoder = text_encoder(command),
                                                    .dtype = judging.dtype,
                                                    .device = judging.device,
                                                    .progress = !command.quiet});
  make_folder(command.output);
  if (!command.rewards.empty()) check_settings(command);
  PromptContest contest(prompts, features, command.bandit, command.duels_path());
  log_info(prompts.size(), " prompts, ", contest.num_duels(), " duels so far");
  std::optional<PromptJudge> judge;
  if (!judging.model.empty()) judge.emplace(judging);
  const DuelPictures pictures{.judge = judge ? &*judge : nullptr, .folder = command.output / "pictures"};
  if (!command.rewards.empty()) {
    judge_duels(contest, *judge, command.num_duels, !command.quiet);
  } else if (command.asks) {
    ask_duels(contest, pictures, command.num_duels);
  } else {
    pose_duel(contest, pictures, command.duels_path());
  }
  write_file(command.output / "result.json", contest.result().dump(2) + "\n");
  constexpr int64_t kMostShown = 10;
  std::printf("%s", contest.text(kMostShown).c_str());
}

void add_prompt_options(CLI::App& app, OptimizePromptCommand& c) {
  const std::string group = "Prompts";
  app.add_option("--candidates", c.source.candidates,
                 "Prompts to choose from: .txt with one a line, or .jsonl with 'prompt'")
      ->group(group);
  app.add_option("--prompt", c.source.prompt, "Instead: what the pictures should show, to be improved by --modifiers")
      ->group(group);
  app.add_option("--modifiers", c.source.modifiers, "File of what may be put behind --prompt, one a line")
      ->group(group);
  app.add_option("--max-modifiers", c.source.max_modifiers, "Of one prompt; all choices of up to so many compete")
      ->check(CLI::Range(int64_t{1}, int64_t{10}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--output", c.output, "Folder for duels.jsonl, result.json and pictures; a run goes on with its duels")
      ->required()
      ->group(group);
  app.add_option(
         "--feedback", c.duels_file,
         "JSONL of duels, {\"a\": prompt, \"b\": prompt, \"winner\": \"a\", \"b\", \"tie\" or the probability of "
         "a}, instead of OUTPUT/duels.jsonl; new ones are added")
      ->group(group);
}

void add_judge_options(CLI::App& app, OptimizePromptCommand& c) {
  const std::string group = "Verdicts";
  app.add_option("--reward", c.rewards,
                 "Reward model that decides over pictures of --model, KIND=PATH as in prefusion score; repeatable. "
                 "Without --reward and --ask, the next duel is drawn and waits for a line in the file of duels")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--reward-args", c.reward_arguments, "Arguments of a reward: COLUMN.NAME=VALUE; repeatable")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--intent", c.judge.intent,
                 "What the pictures should show, by which rewards judge those of every prompt; default --prompt")
      ->group(group);
  app.add_flag("--ask", c.asks, "Ask on the terminal which is better, duel after duel")->group(group);
  app.add_option("--duels", c.num_duels, "Duels in all, earlier ones included, with --reward or --ask")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}))
      ->capture_default_str()
      ->group(group);
}

void add_choice_options(CLI::App& app, OptimizePromptCommand& c) {
  const std::string group = "Choice";
  app.add_option(
         "--text-encoder", c.text_encoder,
         "CLIP folder, or diffusers model, that embeds prompts; default --model, else hashed words and trigrams")
      ->group(group);
  app.add_option("--exploration", c.bandit.exploration,
                 "Worth of uncertainty in the choice of a duel's second prompt; 0 takes the two best")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--ridge", c.bandit.ridge, "Precision of the prior on scores; larger values trust single duels less")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
}

void add_picture_options(CLI::App& app, OptimizePromptCommand& c) {
  const std::string group = "Pictures";
  auto& s = c.judge.sampling;
  s.num_inference_steps = 25;
  s.guidance.scale = 7.5;
  const CLI::Range whole(int64_t{1}, int64_t{100'000});
  app.add_option("--model", c.judge.model, "Model folder in diffusers layout, DIR, or with adapters, DIR+LORA[:SCALE]")
      ->group(group);
  app.add_option("--num-images", c.judge.num_images,
                 "Pictures of each prompt in a duel, of the same seeds; every duel has new ones, from --seed on")
      ->check(whole)
      ->capture_default_str()
      ->group(group);
  app.add_option("--steps", s.num_inference_steps, "Sampling steps")->check(whole)->capture_default_str()->group(group);
  app.add_option("--guidance-scale", s.guidance.scale, "Classifier-free guidance; 1 or less is none")
      ->capture_default_str()
      ->group(group);
  app.add_option("--scheduler", s.scheduler, "Sampler as in prefusion generate; auto is the model's own")
      ->capture_default_str()
      ->group(group);
  app.add_option("--height", s.height_px, "Pixels, a multiple of 8; 0 is the model's own size")
      ->capture_default_str()
      ->group(group);
  app.add_option("--width", s.width_px, "Pixels, a multiple of 8; 0 is the model's own size")
      ->capture_default_str()
      ->group(group);
}

void add_options(CLI::App& app, OptimizePromptCommand& c) {
  add_prompt_options(app, c);
  add_judge_options(app, c);
  add_choice_options(app, c);
  add_picture_options(app, c);
  app.footer(
      "Example, with the bundled model and its exact judge:\n"
      "  printf 'centered\\nsmall\\non a white background\\n' > modifiers.txt\n"
      "  prefusion optimize-prompt --prompt 'a red circle' --modifiers modifiers.txt --model assets/shapes \\\n"
      "      --reward shapes --duels 12 --steps 10 --scheduler dpm++ --guidance-scale 3 --output runs/prompt\n"
      "Without --reward it draws a duel, waits for your verdict in runs/prompt/duels.jsonl, and goes on when called "
      "again; with --ask it asks on the terminal.");
}

}  // namespace

void add_optimize_prompt(CLI::App& root) {
  add_command<OptimizePromptCommand>(root, "optimize-prompt", "Finds the preferred one of many prompts by duels",
                                     add_options, run);
}

}  // namespace prefusion::tools

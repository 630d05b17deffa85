#include <cstdio>

#include "core/error.h"
#include "reward_models/registry.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/score_run.h"
#include "tools/score_server.h"

namespace prefusion::tools {
namespace {

struct ScoreCommand : CommonOptions {
  std::vector<std::string> rewards;
  std::vector<std::string> reward_args;
  std::vector<std::string> inputs;
  std::string image;
  std::string prompt;
  std::string output;
  std::string baseline;
  std::vector<std::string> merge;
  bool lists_rewards = false;
  ScoreRunOptions run;
  ScoreServerOptions server;
};

void add_input_options(CLI::App& app, ScoreCommand& c) {
  const std::string group = "Input";
  app.add_option("--input", c.inputs,
                 "Folder of pictures with NAME.txt beside each or a prompts.jsonl, JSONL or CSV manifest, Parquet "
                 "(Pick-a-Pic, ranked lists, a column of pictures), WebDataset shard .tar, or a folder of such; "
                 "repeatable")
      ->allow_extra_args(false)
      ->group(group);
  app.add_flag("--recursive", c.run.recursive, "Look into the folders below --input, too")->group(group);
  app.add_option("--image", c.image, "A single picture instead")->group(group);
  app.add_option("--prompt", c.prompt, "Its prompt")->group(group);
  app.add_option("--shard", c.run.shard,
                 "I/N: score block I (from 0) of N contiguous blocks of the input; --merge puts them together")
      ->capture_default_str()
      ->group(group);
}

void add_output_options(CLI::App& app, ScoreCommand& c) {
  const std::string group = "Output";
  app.add_option("--output", c.output, "FILE.jsonl, .csv or .parquet; standard output as JSONL without")->group(group);
  app.add_flag("--resume", c.run.resume, "Go on where --output ends")->group(group);
  app.add_flag("--overwrite", c.run.overwrite, "Begin --output anew")->group(group);
  app.add_flag("--details", c.run.details,
               "More columns: row and item of the input, tokens of the prompt and whether it was truncated")
      ->group(group);
  app.add_option("--max-bad", c.run.max_bad,
                 "Pictures that may fail before the run stops: a count such as 12, or a share such as 5%")
      ->capture_default_str()
      ->group(group);
  app.add_option("--baseline", c.baseline, "Another score file to compare with: win rates and mean differences")
      ->group(group);
  app.add_option("--merge", c.merge, "OUT PART...: put the finished shards PART... together into OUT, and nothing else")
      ->expected(2, 1 << 20)
      ->group(group);
}

void add_server_options(CLI::App& app, ScoreCommand& c) {
  const std::string group = "Server";
  app.add_option("--serve", c.server.port,
                 "Answer HTTP requests on 127.0.0.1 at this port instead (8420 without one, 0 takes a free one): GET "
                 "/health, GET /rewards, POST /score (docs/scoring.md)")
      ->expected(0, 1)
      ->check(CLI::Range(0, 65535))
      ->group(group);
  app.add_option("--allow-paths", c.server.allowed_folder, "Requests may name picture files below this folder")
      ->group(group);
  app.add_option("--max-request-mb", c.server.max_request_mb, "Largest request, MiB")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096))
      ->group(group);
  app.add_option("--max-items", c.server.max_items, "Pictures a request may have")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000))
      ->group(group);
  app.add_option("--max-megapixels", c.server.max_megapixels, "Largest picture of a request")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000))
      ->group(group);
  app.add_option("--max-queue", c.server.max_queue, "Pictures that may wait for their turn before requests get 429")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000))
      ->group(group);
  app.add_option("--max-wait-ms", c.server.max_wait_ms, "How long a picture waits for others to fill its batch")
      ->capture_default_str()
      ->check(CLI::Range(0, 10'000))
      ->group(group);
}

void add_options(CLI::App& app, ScoreCommand& c) {
  app.add_option("--reward", c.rewards,
                 "KIND=PATH of a reward model, KIND/NAME=PATH for a second of a kind; repeatable. --list-rewards "
                 "shows the kinds")
      ->allow_extra_args(false);
  app.add_option("--reward-args", c.reward_args, "COLUMN.NAME=VALUE: an argument of a reward model; repeatable")
      ->allow_extra_args(false);
  app.add_flag("--list-rewards", c.lists_rewards, "Print the kinds of reward models and their arguments");
  app.add_option("--batch-size", c.run.batch_size, "Pictures a reward model sees at a time")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{65536}));
  app.add_option("--workers", c.run.workers, "Threads that read and decode pictures; 0 is one a CPU")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  add_input_options(app, c);
  add_output_options(app, c);
  add_server_options(app, c);
  app.footer(
      "Example: prefusion score --reward pickscore=/models/PickScore_v1 --reward clip=/models/clip-vit-large-patch14 "
      "--input pictures/ --output scores.jsonl");
}

void check_modes(const ScoreCommand& c, bool serves) {
  check_usage(!c.rewards.empty(), "give at least one --reward KIND=PATH; --list-rewards shows the kinds");
  if (serves) {
    check_usage(c.inputs.empty() && c.image.empty() && c.output.empty(),
                "--serve takes its pictures from requests, not from --input or --image, and has no --output");
    return;
  }
  check_usage(c.inputs.empty() != c.image.empty(), "give either --input PATH or --image FILE");
  check_usage(!(c.run.resume && c.run.overwrite), "--resume goes on, --overwrite begins anew: give one of them");
}

void run(const ScoreCommand& command, const CLI::App& app) {
  if (command.lists_rewards) {
    std::fputs(reward_models::list_rewards().c_str(), stdout);
    return;
  }
  if (!command.merge.empty()) {
    return merge_scores(command.merge.front(), {command.merge.begin() + 1, command.merge.end()}, command.run.overwrite);
  }
  const bool serves = app.count("--serve") > 0;
  check_modes(command, serves);
  ScoreRunOptions options = command.run;
  options.rewards = reward_models::parse_reward_specs(command.rewards, command.reward_args);
  options.device = command.torch_device();
  options.dtype = command.scalar_type();
  if (serves) {
    ScoreServerOptions server = command.server;
    server.workers = options.workers;
    return serve_scores(options.rewards,
                        {.dtype = options.dtype, .device = options.device, .batch_size = options.batch_size}, server);
  }
  check_usage(!command.image.empty() || app.count("--prompt") == 0, "--prompt belongs to --image");
  options.inputs.assign(command.inputs.begin(), command.inputs.end());
  options.image = command.image;
  if (app.count("--prompt") > 0) options.prompt = command.prompt;
  options.output = command.output;
  options.baseline = command.baseline;
  options.shows_progress = !command.quiet;
  run_scoring(options);
}

}  // namespace

void add_score(CLI::App& root) {
  add_command<ScoreCommand>(root, "score", "Scores pictures under prompts with reward models", add_options, run);
}

}  // namespace prefusion::tools

#include "training/reward/train_reward.h"

#include <cstdio>

#include "losses/reward_losses.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "training/reward/reward_report.h"

namespace prefusion::tools {
namespace {

struct TrainRewardCommand : CommonOptions {
  training::TrainRewardOptions reward;
};

void add_model_options(CLI::App& app, training::TrainRewardOptions& o) {
  const std::string group = "Model";
  app.add_option("--model", o.model,
                 "CLIP folder as transformers saves it (PickScore, CLIP-H, ...); with --train users a pal folder")
      ->group(group);
  app.add_option("--from-config", o.from_config,
                 "CLIP folder without weights (config.json, tokenizer): trains a new one, with --train full")
      ->group(group);
  app.add_option("--output", o.output, "Folder for the reward model, its report and checkpoints")
      ->required()
      ->group(group);
  app.add_option("--head", o.head,
                 "cosine (exp(logit_scale) * cosine, keeps CLIP's layout), mlp, aspects (a score an aspect, mixed by a "
                 "gate on the prompt) or pal (ideal points of users)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--head-args", o.head_args,
                 "k=v,...: mlp and aspects have hidden=256, dropout=0; pal has prototypes=2, dropout=0.5, a=1 (learned "
                 "points instead of the prompt's), dist=1 (distances instead of angles)")
      ->group(group);
  app.add_option("--aspects", o.aspects, "Scores of the data that are the aspects of --head aspects (comma-separated)")
      ->delimiter(',')
      ->group(group);
  app.add_option(
         "--train", o.train,
         "head (towers frozen, pictures encoded once), last:N (the last N layers of both towers as well), full, "
         "or users (mixtures of new users of a pal folder)")
      ->capture_default_str()
      ->group(group);
}

void add_loss_options(CLI::App& app, training::TrainRewardOptions& o) {
  const std::string group = "Loss";
  std::string losses = "One of";
  for (const auto& loss : losses::reward_losses()) {
    losses += (losses == "One of" ? " " : "; ") + loss.name + ": " + loss.summary;
  }
  app.add_option("--loss", o.loss, losses)->capture_default_str()->group(group);
  app.add_option("--loss-args", o.loss_args, "k=v: margin=1 of hps, strides=2 of ranklist")->group(group);
  app.add_option("--in-batch-negatives", o.in_batch_negatives,
                 "Weight of telling a prompt's picture from those of the batch's other prompts, and the reverse")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
}

void add_data_options(CLI::App& app, training::TrainRewardOptions& o) {
  const std::string group = "Data";
  app.add_option("--data", o.data,
                 "Pick-a-Pic Parquet files, ranked lists, JSONL manifests, HPDv2 JSON, or folders of them")
      ->required()
      ->group(group);
  app.add_option("--eval-data", o.eval_data, "Validation data; by default a share of the prompts of --data")
      ->group(group);
  app.add_option("--test-data", o.test_data, "Test data; by default a share of the prompts of --data")->group(group);
  app.add_option("--eval-fraction", o.eval_fraction,
                 "Share of prompts that choose the best step, the temperature and the tie threshold")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str()
      ->group(group);
  app.add_option("--test-fraction", o.test_fraction, "Share of prompts that are measured once, at the end")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str()
      ->group(group);
  app.add_option("--score-name", o.score_name, "Score of the data that judges rows nobody labelled; mse learns it")
      ->group(group);
  app.add_option("--groups", o.groups,
                 "pairs (a list gives its best against its worst), lists, or auto: what the loss is made for")
      ->capture_default_str()
      ->group(group);
  app.add_option("--list-size", o.list_size, "Items of a list; longer ones are thinned, 0 takes the shortest's size")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag("--drop-ties", o.drop_ties, "Leave out pairs labelled 0.5")->group(group);
  app.add_flag("--no-prompt-weights", o.no_prompt_weights,
               "Let every pair count the same, instead of 1 / (pairs of its prompt)")
      ->group(group);
  app.add_option("--cache", o.cache, "Folder of the encoded pictures and prompts; default OUTPUT/cache")->group(group);
  app.add_option("--max-bad", o.max_bad, "Share of groups that may be unreadable before the run stops")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  app.add_option("--workers", o.workers, "Threads that read and prepare pictures")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
}

void add_optimisation_options(CLI::App& app, training::TrainRewardOptions& o) {
  const std::string group = "Optimisation";
  app.add_option("--steps", o.steps, "Optimizer steps; 0 goes by --epochs")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--epochs", o.epochs, "Passes over the training groups")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--batch-size", o.batch_size, "Groups a micro-step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--accumulate", o.accumulate, "Micro-steps an optimizer step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--lr", o.lr,
         "Peak learning rate; 0 takes 1e-4 for heads, 3e-6 for towers, 1e-3 for --from-config, 5e-3 for --train "
         "users. A pal head's mixtures and points have 50 times, its scale 1000 times the rate")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--lr-schedule", o.lr_schedule, "constant, linear or cosine (the latter two to zero)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--warmup", o.warmup, "Steps of linear warmup")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--weight-decay", o.weight_decay, "Decoupled weight decay of AdamW")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-grad-norm", o.max_grad_norm, "Gradients are scaled to this global norm at most; 0 never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag("--gradient-checkpointing", o.gradient_checkpointing,
               "Recompute the towers' activations in the backward pass: less memory, more time")
      ->group(group);
}

void add_tracking_options(CLI::App& app, training::TrainRewardOptions& o) {
  const std::string group = "Tracking";
  app.add_option("--eval-every", o.eval_every, "Steps between measurements on the validation prompts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--patience", o.patience, "Stop after so many measurements without a better one; 0 never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--log-every", o.log_every, "Steps between rows of metrics.jsonl")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--save-every", o.save_every, "Steps between checkpoints; 0 saves the best and the last alone")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--keep", o.keep, "Checkpoints that are kept beside the best one; 0 all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag("--resume", o.resume, "Go on from the newest checkpoint in --output")->group(group);
}

void add_options(CLI::App& app, TrainRewardCommand& command) {
  app.footer(
      "Example: prefusion train-reward --model PickScore_v1 --data train.parquet --output reward\n"
      "Prints accuracy, log-loss and calibration error on prompts that training never saw, with 95 % intervals.");
  add_model_options(app, command.reward);
  add_loss_options(app, command.reward);
  add_data_options(app, command.reward);
  add_optimisation_options(app, command.reward);
  add_tracking_options(app, command.reward);
}

void run(const TrainRewardCommand& command, const CLI::App& app) {
  training::TrainRewardOptions options = command.reward;
  options.seed = command.seed;
  options.progress = !command.quiet;
  options.resolved_config = resolved_config(app, {"resume"});
  const Json report = training::train_reward(options, command.torch_device(), command.scalar_type());
  std::printf("%s", training::reward_report_text(report).c_str());
}

}  // namespace

void add_train_reward(CLI::App& root) {
  add_command<TrainRewardCommand>(root, "train-reward",
                                  "Fits a reward model (pairs, soft labels, lists, ratings) on preference data",
                                  add_options, run);
}

}  // namespace prefusion::tools

#include "training/reward/reward_start.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <map>

#include "core/error.h"
#include "nn/layers.h"
#include "reward_models/reward_folder.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

using reward_models::RewardHeadConfig;

RewardHeadConfig head_config(const TrainRewardOptions& options, const RewardData& data, int64_t width) {
  RewardHeadConfig config{.kind = options.head, .width = width, .columns = data.columns};
  std::map<std::string, double> numbers;
  if (options.head == "mlp" || options.head == "aspects") numbers = {{"hidden", 256}, {"dropout", 0}};
  if (options.head == "pal") {
    numbers = {{"prototypes", 2}, {"dropout", 0.5}, {"a", 0}, {"dist", 0}};
    config.users = data.users;
  }
  numbers = parse_numbers(options.head_args, numbers, "--head-args");
  if (numbers.contains("hidden")) config.hidden = std::llround(numbers["hidden"]);
  if (numbers.contains("dropout")) config.dropout = numbers["dropout"];
  if (numbers.contains("prototypes")) config.prototypes = std::llround(numbers["prototypes"]);
  check_usage((config.kind == "cosine" || config.kind == "pal" || config.hidden > 0) && config.dropout >= 0 &&
                  config.dropout < 1 && config.prototypes > 0,
              "--head-args ", options.head_args, ": hidden and prototypes are positive, dropout is from 0 to below 1");
  if (numbers["a"] != 0) config.form = "a";
  if (numbers["dist"] != 0) config.metric = "dist";
  return reward_models::parse_reward_head(to_json(config), "--head-args");  // checks the ranges
}

// The head of --train users with rows for the users who are new: at the mean of nobody, equal shares.
std::shared_ptr<reward_models::RewardHead> with_new_users(reward_models::RewardHead& known, const RewardData& data) {
  RewardHeadConfig config = known.config();
  const auto num_known = static_cast<int64_t>(config.users.size());
  config.users = data.users;
  auto head = reward_models::make_reward_head(config, 0);
  at::NoGradGuard no_grad;
  const TensorMap old = nn::tensor_map(known);
  for (auto& [name, tensor] : nn::named_tensors(*head)) {
    if (name == "user_weights") tensor.zero_().slice(0, 0, num_known).copy_(old.at(name));
    if (name != "user_weights") tensor.copy_(old.at(name));
  }
  return head;
}

}  // namespace

RewardStart find_reward_start(const TrainRewardOptions& options, at::Device device) {
  RewardStart start;
  start.has_weights = options.from_config.empty();
  start.clip = start.has_weights ? options.model : options.from_config;
  if (options.training() != RewardTraining::kUsers) return start;
  const reward_models::RewardFolder folder = reward_models::read_reward_folder(options.model);
  check_input(folder.head.kind == "pal", options.model.string(), ": --train users goes on with a pal head, found '",
              folder.head.kind, "'");
  start.clip = folder.clip;
  start.head = reward_models::load_reward_head(folder, device);
  start.known_users = folder.head.users;
  return start;
}

std::unique_ptr<RewardNetwork> make_reward_network(const TrainRewardOptions& options, const RewardStart& start,
                                                   const RewardData& data, at::Device device, at::ScalarType dtype) {
  reward_models::ClipNetwork clip = start.has_weights
                                        ? reward_models::load_clip_network(start.clip, dtype, device)
                                        : reward_models::make_clip_network(start.clip, options.seed, device);
  std::shared_ptr<reward_models::RewardHead> head;
  if (start.head) {
    head = with_new_users(*start.head, data);
  } else {
    const RewardHeadConfig config = head_config(options, data, clip.vision->config().projection_dim);
    head = config.kind == "cosine" ? reward_models::make_cosine_head(config, clip.log_scale)
                                   : reward_models::make_reward_head(config, options.seed);
  }
  const bool models_ties = options.loss == "bradley-terry" && data.num_ties(data.train) > 0;
  auto network = std::make_unique<RewardNetwork>(std::move(clip), head, options, models_ties, device);
  network->train(false);  // the first measurement comes before the first step
  network->set_known_users(static_cast<int64_t>(start.known_users.size()));
  return network;
}

Json reward_fingerprint(const TrainRewardOptions& options, const std::map<std::string, double>& loss_parameters,
                        const RewardData& data, RewardNetwork& network, int64_t num_steps, at::ScalarType dtype) {
  TensorMap weights;
  for (const NamedTensor& tensor : network.clip().tensors()) weights["clip " + tensor.name] = tensor.tensor.detach();
  for (const auto& [name, tensor] : nn::tensor_map(network.head())) weights["head " + name] = tensor.detach();
  return {{"start", sampled_weights_key(weights)},
          {"loss", options.loss},
          {"loss_args", loss_parameters},
          {"head", to_json(network.head().config())},
          {"train", options.train},
          {"data", data.facts(options)},
          {"prompt_weights", !options.no_prompt_weights},
          {"in_batch_negatives", options.in_batch_negatives},
          {"batch_size", options.batch_size},
          {"accumulate", options.accumulate},
          {"lr", options.base_lr()},
          {"lr_schedule", concat(options.lr_schedule, ", warmup ", options.warmup,
                                 options.lr_schedule == "constant" ? "" : concat(", ", num_steps, " steps"))},
          {"weight_decay", options.weight_decay},
          {"max_grad_norm", options.max_grad_norm},
          {"eval_every", options.eval_every},
          {"dtype", c10::toString(dtype)},
          {"seed", options.seed}};
}

}  // namespace prefusion::training

#include "training/reward/reward_trainer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "training/lr_schedule.h"

namespace prefusion::training {
namespace {

// Counts the pairs of a batch that are ordered as they were judged.
void count_right(const RewardBatch& batch, RewardStep& result) {
  at::NoGradGuard no_grad;
  const at::Tensor targets = losses::pair_targets(batch.labels);
  const at::Tensor gaps = losses::score_gaps(batch.scores.detach());
  const at::Tensor counts = targets.ne(0.5);
  result.right += ((gaps.sign() == (targets - 0.5).sign()).logical_and(counts)).sum().item<double>();
  result.compared += counts.sum().item<double>();
}

}  // namespace

RewardTrainer::RewardTrainer(const TrainRewardOptions& options, const losses::RewardLoss& loss,
                             std::map<std::string, double> loss_parameters, const RewardData& data,
                             RewardNetwork& network, RewardBatches& batches)
    : options_(options),
      loss_(loss),
      loss_parameters_(std::move(loss_parameters)),
      data_(data),
      network_(network),
      batches_(batches),
      order_(data, options.seed) {
  for (const auto& group : network.trainable()) {
    rates_.push_back(group.lr > 0 ? group.lr : options.base_lr());
    optimizers_.emplace_back(group.parameters,
                             AdamWOptions{.lr = options.base_lr(), .weight_decay = options.weight_decay});
  }
  const int64_t per_step = options.batch_size * options.accumulate;
  const auto count = static_cast<int64_t>(data.train.size());
  num_steps_ = options.steps > 0 ? options.steps : std::max<int64_t>(1, options.epochs * count / per_step);
}

int64_t RewardTrainer::num_parameters() const {
  int64_t count = 0;
  for (const AdamW& optimizer : optimizers_) {
    for (const auto& [name, parameter] : optimizer.parameters()) count += parameter.numel();
  }
  return count;
}

std::vector<RewardGroup> RewardTrainer::groups_at(int64_t micro_step) {
  std::vector<RewardGroup> groups;
  for (int64_t i = 0; i < options_.batch_size; ++i) {
    groups.push_back(data_.train[order_.at(micro_step * options_.batch_size + i)]);
  }
  return groups;
}

RewardStep RewardTrainer::step(int64_t step) {
  seed_dropout(step);
  network_.train(true);
  RewardStep result;
  double loss_sum = 0;
  std::string ids;
  for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
    const int64_t position = step * options_.accumulate + micro;
    const std::vector<RewardGroup> groups = groups_at(position);
    const RewardBatch batch = batches_.make(groups);
    if (position + 1 < num_steps_ * options_.accumulate) batches_.prefetch(groups_at(position + 1));
    const at::Tensor loss = loss_of(batch);
    (loss / static_cast<double>(options_.accumulate)).backward();
    loss_sum += loss.item<double>();
    count_right(batch, result);
    ids = data_.source(groups.front()).id(groups.front().index);
  }
  network_.train(false);
  network_.hold_known_users();
  result.loss = loss_sum / static_cast<double>(options_.accumulate);
  const at::Tensor norm = grad_norm();
  result.grad_norm = norm.item<double>();
  check_run(std::isfinite(result.loss) && std::isfinite(result.grad_norm), "step ", step + 1, ": the loss is ",
            result.loss, " and the gradient norm ", result.grad_norm, " (a batch that begins with ", ids,
            "); use a smaller --lr");
  const double factor = lr_factor(parse_lr_schedule(options_.lr_schedule), step, options_.warmup, num_steps_);
  for (size_t i = 0; i < optimizers_.size(); ++i) {
    optimizers_[i].step(rates_[i] * factor, {.gradient_factor = clip_factor(norm, options_.max_grad_norm)});
    optimizers_[i].zero_grad();
  }
  result.lr = options_.base_lr() * factor;
  return result;
}

// Dropout draws from torch's default generator; a step's draws follow from its number.
void RewardTrainer::seed_dropout(int64_t step) const {
  if (network_.head().config().dropout == 0) return;
  const uint64_t seed = random_stream({options_.seed, static_cast<uint64_t>(step), 0}, RandomPurpose::kOther);
  at::manual_seed(seed);
}

at::Tensor RewardTrainer::loss_of(const RewardBatch& batch) const {
  const losses::RewardTargets targets{.scores = batch.scores, .labels = batch.labels, .log_tie = network_.log_tie()};
  at::Tensor per_group = loss_.compute(targets, loss_parameters_);
  if (options_.in_batch_negatives > 0) per_group = per_group + options_.in_batch_negatives * negatives_of(batch);
  return losses::weighted_mean(per_group, batch.weights);
}

at::Tensor RewardTrainer::negatives_of(const RewardBatch& batch) const {
  const auto count = static_cast<int64_t>(batch.groups.size());
  std::map<std::string, int64_t> numbers;
  std::vector<int64_t> prompt_numbers;
  for (const std::string& prompt : batch.prompts) {
    prompt_numbers.push_back(numbers.try_emplace(prompt, static_cast<int64_t>(numbers.size())).first->second);
  }
  const at::Tensor number = at::tensor(prompt_numbers, at::kLong).to(network_.device());
  const at::Tensor cosines = reward_models::unit_rows(batch.prompt_features)
                                 .matmul(reward_models::unit_rows(batch.pictures).t());  // [B, B * k]
  const at::Tensor scores = (network_.clip().log_scale.exp() * cosines).view({count, count, data_.group_size});
  return losses::in_batch_loss(scores, number.unsqueeze(0).eq(number.unsqueeze(1)));
}

at::Tensor RewardTrainer::grad_norm() const {
  std::vector<at::Tensor> norms;
  for (const AdamW& optimizer : optimizers_) norms.push_back(optimizer.grad_norm());
  return at::linalg_vector_norm(at::stack(norms));
}

std::map<std::string, TensorMap> RewardTrainer::state() const {
  std::map<std::string, TensorMap> state;
  for (size_t i = 0; i < optimizers_.size(); ++i) state[concat("optimizer-", i)] = optimizers_[i].state();
  return state;
}

void RewardTrainer::load_state(const std::map<std::string, TensorMap>& state, const std::string& where) {
  for (size_t i = 0; i < optimizers_.size(); ++i) {
    const auto found = state.find(concat("optimizer-", i));
    check_input(found != state.end(), where, ": is no checkpoint of train-reward");
    optimizers_[i].load_state(found->second, where);
  }
}

}  // namespace prefusion::training

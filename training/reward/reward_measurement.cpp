#include "training/reward/reward_measurement.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "core/error.h"
#include "losses/reward_losses.h"

namespace prefusion::training {

std::vector<PairOutcome> RewardMeasurement::outcomes(const std::vector<RewardGroup>& groups, int32_t column) {
  at::NoGradGuard no_grad;
  std::vector<RewardGroup> chosen;
  for (const RewardGroup& group : groups) {
    if (group.column == column) chosen.push_back(group);
  }
  std::map<std::string, int64_t> numbers;
  std::vector<PairOutcome> result;
  for (size_t begin = 0; begin < chosen.size(); begin += static_cast<size_t>(options_.batch_size)) {
    const size_t end = std::min(chosen.size(), begin + static_cast<size_t>(options_.batch_size));
    const RewardBatch batch = batches_.make({chosen.begin() + begin, chosen.begin() + end});
    const at::Tensor gaps = losses::score_gaps(batch.scores).to(at::kCPU, at::kDouble);
    const at::Tensor targets = losses::pair_targets(batch.labels).to(at::kCPU, at::kDouble);
    for (int64_t g = 0; g < gaps.size(0); ++g) {
      if (batch.groups[g].weight == 0) continue;
      const int64_t number = numbers.try_emplace(batch.prompts[g], static_cast<int64_t>(numbers.size())).first->second;
      for (int64_t p = 0; p < gaps.size(1); ++p) {
        result.push_back({gaps[g][p].item<double>(), targets[g][p].item<double>(), number});
      }
    }
  }
  check_run(std::all_of(result.begin(), result.end(), [](const PairOutcome& o) { return std::isfinite(o.gap); }),
            "step ", step_, ": a score of the held-out pictures is not finite; use a smaller --lr");
  return result;
}

RewardQuality RewardMeasurement::quality(const std::vector<RewardGroup>& groups, int32_t column, double temperature,
                                         double tie_threshold) {
  return measure_quality(outcomes(groups, column), temperature, tie_threshold, options_.seed);
}

double RewardMeasurement::order_dependence() {
  at::NoGradGuard no_grad;
  const auto& groups = data_.test.empty() ? data_.validation : data_.test;
  std::vector<RewardGroup> some(groups.begin(), groups.begin() + std::min<size_t>(groups.size(), 64));
  const RewardBatch batch = batches_.make(some);
  const int64_t k = data_.group_size;
  std::vector<int64_t> users, columns;
  for (const RewardGroup& group : some) {
    users.insert(users.end(), static_cast<size_t>(k), group.user);
    columns.push_back(group.column);
  }
  const at::Tensor pictures = batch.pictures.view({-1, k, batch.pictures.size(1)}).flip(1).flatten(0, 1);
  const at::Tensor swapped = network_.head()
                                 .forward({.pictures = pictures,
                                           .prompts = batch.prompt_features.repeat_interleave(k, 0),
                                           .users = at::tensor(users, at::kLong).to(network_.device())})
                                 .view({-1, k, static_cast<int64_t>(data_.columns.size())});
  const at::Tensor places = at::tensor(columns, at::kLong).to(network_.device()).view({-1, 1, 1}).expand({-1, k, 1});
  return (swapped.gather(2, places).squeeze(2).flip(1) - batch.scores).abs().max().item<double>();
}

}  // namespace prefusion::training

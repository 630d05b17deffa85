#pragma once

#include <cstdint>
#include <vector>

#include "core/json_config.h"
#include "training/reward/reward_batches.h"
#include "training/reward/reward_data.h"
#include "training/reward/reward_metrics.h"
#include "training/reward/reward_network.h"
#include "training/reward/reward_options.h"

namespace prefusion::training {

// What a reward model says of held-out groups, with the weights of now.
class RewardMeasurement {
 public:
  // `step`, the run's, is for messages.
  RewardMeasurement(const TrainRewardOptions& options, const RewardData& data, RewardNetwork& network,
                    RewardBatches& batches, const int64_t& step)
      : options_(options), data_(data), network_(network), batches_(batches), step_(step) {}

  // The judged pairs of the groups of one column. Run error for a score that is not finite.
  std::vector<PairOutcome> outcomes(const std::vector<RewardGroup>& groups, int32_t column);

  // The same as a measurement.
  RewardQuality quality(const std::vector<RewardGroup>& groups, int32_t column, double temperature = 1,
                        double tie_threshold = 0);

  // How much a comparison changes when its pictures change places; a score is of one picture, so nothing should.
  double order_dependence();

 private:
  const TrainRewardOptions& options_;
  const RewardData& data_;
  RewardNetwork& network_;
  RewardBatches& batches_;
  const int64_t& step_;
};

}  // namespace prefusion::training

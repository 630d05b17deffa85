#pragma once

#include <cstdint>

#include "core/json_config.h"
#include "training/reward/reward_metrics.h"

namespace prefusion::training {

// Which step of a run is kept: the one of the highest validation accuracy, of equally accurate ones that with the
// smaller log-loss. The start is none of them.
class RewardSelection {
 public:
  // Whether this step is better than all before. Ties alone have no accuracy and count as 0.5.
  bool consider(int64_t step, const RewardQuality& quality);

  int64_t best_step() const { return best_step_; }          // -1: none yet
  int64_t measurements_since() const { return patience_; }  // the best one

  Json state() const;
  // Throws Json::exception for what state() did not write.
  void load_state(const Json& state);

 private:
  int64_t best_step_ = -1;
  double best_accuracy_ = -1;
  double best_log_loss_ = 0;
  int64_t patience_ = 0;
};

}  // namespace prefusion::training

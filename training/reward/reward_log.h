#pragma once

#include <cstdint>
#include <string>

#include "training/metrics_log.h"
#include "training/reward/reward_options.h"
#include "training/reward/reward_trainer.h"
#include "training/tensorboard.h"

namespace prefusion::training {

// metrics.jsonl and the TensorBoard events of a run. A logged step's row waits for the measurement that follows it.
class RewardLog {
 public:
  // Goes on after `step`.
  RewardLog(const TrainRewardOptions& options, int64_t num_groups, int64_t num_steps, int64_t step);

  // Step number `step`, from 1. Rows hold means since the last logged one.
  void add(int64_t step, const RewardStep& done, double seconds);
  // Adds what was measured after that step, and writes the row.
  void add_measurement(int64_t step, const Metrics& measured);

  const std::string& note() const { return note_; }  // for the progress line

 private:
  void make_row(int64_t step, const RewardStep& last);
  void write(int64_t step);

  const TrainRewardOptions& options_;
  int64_t num_groups_;
  int64_t num_steps_;
  MetricsLog log_;
  TensorBoardWriter events_;
  Metrics row_;  // not written yet
  std::string note_;
  RewardStep total_;
  double seconds_ = 0;
  int64_t num_timed_ = 0;
};

}  // namespace prefusion::training

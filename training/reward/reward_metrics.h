#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "training/paired_statistics.h"

namespace prefusion::training {

// One judged pair and what the model says of it.
struct PairOutcome {
  double gap = 0;      // score of the first minus that of the second
  double target = 1;   // probability that the first is preferred; 0.5 is a tie
  int64_t prompt = 0;  // number of its prompt

  bool is_tie() const { return target == 0.5; }
};

// What scores are worth, measured on pairs.
struct RewardQuality {
  int64_t pairs = 0;
  int64_t ties = 0;
  int64_t prompts = 0;
  Interval accuracy;             // over pairs without ties; equal scores count one half
  Interval accuracy_per_prompt;  // the same, averaged within each prompt first
  Interval accuracy_with_ties;   // Pick-a-Pic's protocol: 1, or 0.5 where exactly one of label and prediction is a tie
  double log_loss = 0;           // of sigmoid(gap), in nats
  double calibrated_log_loss = 0;  // of sigmoid(gap / temperature)
  double calibration_error = 0;    // of sigmoid(gap): ECE, ten bins of equal width from 0.5 to 1
  double calibrated_calibration_error = 0;
};

// The T > 0 that makes sigmoid(gap / T) fit best in log-loss; 1 where there is nothing to fit.
double fit_temperature(const std::vector<PairOutcome>& outcomes);

// The threshold t among 0, 0.1, ... 1 of the highest accuracy with ties; a tie is predicted where
// |p_first - p_second| <= t, p the softmax of the scores. The smallest of equally good ones.
double pick_tie_threshold(const std::vector<PairOutcome>& outcomes);

// 95 % intervals are bootstraps over prompts, a function of `seed`.
RewardQuality measure_quality(const std::vector<PairOutcome>& outcomes, double temperature, double tie_threshold,
                              uint64_t seed);

Json to_json(const RewardQuality& quality);

}  // namespace prefusion::training

#pragma once

#include "core/json_config.h"
#include "losses/group_errors.h"

namespace prefusion::training {

// Keeps the gradient factor sigmoid(-kappa |D|) of a pairwise logistic loss near a target on average, by following the
// running mean m of |D|: kappa = log((1 - target) / target) / m. After SimpleTuner's automatic beta for Flow-DPO
// (target 0.2, decay 0.99). D is exactly 0 before the first step of a LoRA run, so kappa starts where the user or the
// objective puts it and stays within a factor of 100 of that.
class AutoKappa {
 public:
  AutoKappa(double target, double start) : target_(target), start_(start) {}

  // The kappa to use from now on, after a batch with these errors [B, k] (the first and the last item count).
  double observe(const losses::GroupErrors& errors);

  Json state() const;
  double load_state(const Json& state);  // -> kappa

 private:
  double kappa() const;

  double target_;
  double start_;
  double mean_ = 0;  // of |D|, 0 before the first batch with a difference
};

}  // namespace prefusion::training

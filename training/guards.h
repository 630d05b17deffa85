#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/json_config.h"

namespace prefusion::training {

// Watches gradient norms: a step far outside their running distribution is a spike and is skipped; one that is not
// finite is skipped up to a budget, then the run stops. It decides on the device of the norms, and nobody waits for it
// until the host wants to know. The history is part of the checkpoint.
class GradientGuard {
 public:
  // `spike_factor` times the running median counts as a spike (0: never).
  GradientGuard(double spike_factor, int64_t skip_nonfinite, at::Device device);

  // Whether the step is taken: fp32 [], 1 or 0. `loss` and `grad_norm` are 0-dim tensors on the device; `ids` names the
  // records of the step for the messages.
  at::Tensor judge(const at::Tensor& loss, const at::Tensor& grad_norm, int64_t step, std::string ids);

  // Says what was skipped since the last call. Waits for the device. Run error when the non-finite budget is spent; no
  // step was taken by what is not finite.
  void settle();

  // Of settled steps.
  Json state() const;
  void load_state(const Json& state);
  int64_t num_skipped() const { return num_skipped_; }

 private:
  struct Judged {
    int64_t step;
    std::string ids;
    at::Tensor facts;  // [5] fp64 as the host reads them
  };
  void report(const Judged& judged, const double* facts);

  double spike_factor_;
  int64_t nonfinite_budget_;
  int64_t num_skipped_ = 0;
  int64_t num_nonfinite_ = 0;
  at::Tensor history_;  // [100] fp64, the newest last; infinite where there is none yet
  std::vector<Judged> judged_;
};

// Looks at held-out measurements for signs that the likelihood of the chosen pictures is paying for the margin.
class OverOptimisationAlarm {
 public:
  // `drift`: how far the held-out chosen error may rise above the reference's, as a share of it.
  explicit OverOptimisationAlarm(double drift) : drift_(drift) {}

  // Returns the warning to show, or an empty text. `error_chosen_ref` <= 0 compares with the first measurement instead.
  std::string check(int64_t step, double accuracy, double margin, double error_chosen, double error_chosen_ref);

  Json state() const;
  void load_state(const Json& state);

 private:
  double drift_;
  double first_error_ = -1;
  double best_accuracy_ = -1;
};

// Likelihood displacement: the margin is positive although most held-out chosen items (`displaced_low`, the lower 95 %
// bound of their share, is above 1/2) have become less likely than at the start. Returns the warning to show, or an
// empty text.
std::string displacement_warning(int64_t step, double displaced, double displaced_low, double margin);

}  // namespace prefusion::training

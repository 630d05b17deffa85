#pragma once

#include <ATen/core/Tensor.h>

#include <deque>

#include "schedulers/scheduler.h"
#include "schedulers/sigma_schedule.h"
#include "schedulers/solver_point.h"

namespace prefusion::schedulers {

// "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", arXiv 2302.04867: every
// denoiser call first corrects the step that led to it, then predicts the next sample.
class UniPcScheduler : public Scheduler {
 public:
  explicit UniPcScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;
  void keep_items(const at::Tensor& items) override;
  InputScales input_scales(size_t index) const override;
  at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const override;

 private:
  struct Update;
  std::vector<double> choose_sigmas(int64_t num_inference_steps);
  at::Tensor convert(const at::Tensor& prediction, const at::Tensor& sample, int64_t index) const;
  Update make_update(int64_t from, int64_t order) const;
  at::Tensor predict(const at::Tensor& sample, int64_t index, int64_t order) const;
  at::Tensor correct(const at::Tensor& converted, int64_t index) const;

  SigmaTable table_;
  at::Tensor sigmas_;               // [S + 1]
  std::deque<at::Tensor> history_;  // converted predictions, newest first
  at::Tensor last_sample_;          // corrected sample the last step started from
  int64_t last_order_ = 1;
};

}  // namespace prefusion::schedulers

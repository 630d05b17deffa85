#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <optional>

#include "schedulers/scheduler.h"
#include "schedulers/sigma_schedule.h"
#include "schedulers/solver_point.h"

namespace prefusion::schedulers {

// Multistep DPM-Solver of order 1 to 3 ("DPM-Solver", arXiv 2206.00927; "DPM-Solver++", arXiv 2211.01095), which
// integrates the predicted noise (dpmsolver) or the predicted clean latents (dpmsolver++), as an ODE or an SDE
// (sde-...).
class DpmSolverScheduler : public Scheduler {
 public:
  explicit DpmSolverScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;
  void keep_items(const at::Tensor& items) override;
  InputScales input_scales(size_t index) const override;
  at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const override;

 private:
  std::vector<double> choose_sigmas(int64_t num_inference_steps);
  at::Tensor convert(const at::Tensor& prediction, const at::Tensor& sample, const SolverPoint& here) const;
  int64_t order_at(size_t index) const;
  at::Tensor advance(const at::Tensor& sample, const SolverPoint& from, const SolverPoint& to,
                     const std::vector<at::Tensor>& differences, const at::Tensor& noise) const;

  bool predicts_clean_;  // ++: integrates the clean latents
  bool is_stochastic_;
  at::Tensor alphas_cumprod_;  // [T]
  SigmaTable table_;
  at::Tensor sigmas_;               // [S + 1]
  std::deque<at::Tensor> history_;  // converted predictions, newest first
};

}  // namespace prefusion::schedulers

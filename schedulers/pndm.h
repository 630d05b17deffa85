#pragma once

#include <ATen/core/Tensor.h>

#include <deque>

#include "schedulers/scheduler.h"

namespace prefusion::schedulers {

// "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778: a fourth-order linear multistep
// method, started by three Runge-Kutta steps or, with skip_prk_steps, by lower orders (PLMS of latent diffusion).
class PndmScheduler : public Scheduler {
 public:
  explicit PndmScheduler(const SchedulerConfig& config);
  void set_timesteps(int64_t num_inference_steps) override;
  at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                  const NoiseSource& noise) override;
  void keep_items(const at::Tensor& items) override;

 private:
  at::Tensor runge_kutta_step(const at::Tensor& prediction, size_t index, const at::Tensor& sample);
  at::Tensor multistep_step(const at::Tensor& prediction, size_t index, const at::Tensor& sample);
  at::Tensor transfer(const at::Tensor& sample, int64_t from, int64_t to, const at::Tensor& prediction) const;

  at::Tensor alphas_cumprod_;       // [T]
  at::Tensor final_alpha_cumprod_;  // abar "before" timestep 0
  int64_t stride_ = 1;
  size_t num_runge_kutta_calls_ = 0;
  std::deque<at::Tensor> history_;  // predictions, newest first
  at::Tensor weighted_sum_;         // of the predictions of the Runge-Kutta step under way
  at::Tensor start_;                // sample the step under way started from
};

}  // namespace prefusion::schedulers

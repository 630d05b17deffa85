#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// Predictions for latents [n, ...] at timesteps [n] (int64, on their device). `items` are the rows' positions in the
// batch, to pick their conditioning by: items that have arrived take no part.
using InversionDenoiser =
    std::function<at::Tensor(const at::Tensor& latents, const at::Tensor& timesteps, at::IntArrayRef items)>;

// Standard normal noise of the shape of `latents` for these items at step number `step` of their walk.
using InversionNoise = std::function<at::Tensor(const at::Tensor& latents, at::IntArrayRef items, int64_t step)>;

struct InversionOptions {
  int64_t num_steps = 10;  // of a walk through the whole schedule; an item at t takes its share of them
  double eta = 0.0;        // noise added after each step, in units of the deviation of DDIM's step back; DDIM-InPO: 0.1
  bool renoise = false;    // SmPO: each step with the mean of the noise predicted before and after it
};

struct InvertedLatents {
  at::Tensor noisy_latents;  // x_t [N, ...], fp32 (fp64 for fp64 latents)
  at::Tensor noise;          // (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t), the noise that leads there from x_0
};

// DDIM run from data to noise ("Denoising Diffusion Implicit Models", arXiv 2010.02502; as a source of noise for
// preference training: DDIM-InPO, arXiv 2503.18454, and with ReNoise steps SmPO, arXiv 2506.02698). The prompt is
// given, guidance is the denoiser's business.
//
// Each item climbs the grid of the config's spacing from clean latents up to its own timestep t, and its last step
// lands on t itself. The public code differs in three ways: it stops at the last grid value below t and yet takes the
// latents for x_t; it walks all items to the first one's timestep; and its extra noise comes on top of the step, so
// that the latents are noisier than their timestep says. Where it starts at abar_0 in folders with set_alpha_to_one =
// false, this starts at 1: clean latents have no noise.
//
// The denoiser is asked at the timestep a step leads to, as in diffusers' DDIMInverseScheduler, which it equals for
// epsilon prediction. Other predictions are turned into noise at that timestep, so that two networks that agree lead to
// the same latents whatever they predict.
class DdimInversion {
 public:
  // Usage error when num_steps is not between 1 and T, or eta not between 0 and 1.
  DdimInversion(const SchedulerConfig& config, const InversionOptions& options);

  // Ascending timesteps between clean latents and noise.
  const std::vector<int64_t>& grid() const { return grid_; }

  // Clean latents [N, ...] to x_t at timesteps [N] (int64, 0 <= t < T; run error otherwise), without gradients. `noise`
  // is asked only where eta > 0.
  InvertedLatents invert(const at::Tensor& latents, const at::Tensor& timesteps, const InversionDenoiser& denoiser,
                         const InversionNoise& noise = {}) const;

 private:
  struct Climb;
  std::vector<int64_t> read_targets(const at::Tensor& timesteps, int64_t num_items) const;
  at::Tensor alphas(const at::Tensor& timesteps, const at::Tensor& like) const;
  at::Tensor advance(const at::Tensor& sample, const Climb& climb, const InversionDenoiser& denoiser,
                     const InversionNoise& noise) const;

  SchedulerConfig config_;
  InversionOptions options_;
  at::Tensor alphas_cumprod_;  // [T]
  std::vector<int64_t> grid_;
};

}  // namespace prefusion::schedulers

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// Sigmas in the sense of k-diffusion ("Elucidating the Design Space of Diffusion-Based Generative Models", arXiv
// 2206.00364): sqrt((1 - abar) / abar), the noise level of a sample whose signal has scale 1. Values are fp32 in the
// table and double in between, as in diffusers.
class SigmaTable {
 public:
  // alphas_cumprod [T] fp32, all positive.
  explicit SigmaTable(const at::Tensor& alphas_cumprod);

  // Linear interpolation of sigma at a timestep, constant beyond the ends.
  double at(double timestep) const;

  // The timestep, with fraction, whose log sigma this is.
  double timestep_of(double sigma) const;

  // Descending schedules of `count` sigmas between the limits: of Karras et al. (arXiv 2206.00364, equation 5, rho 7),
  // equal steps in log sigma, quantiles of Beta(0.6, 0.6) ("Beta Sampling is All You Need", arXiv 2407.12173).
  static std::vector<double> karras(double sigma_max, double sigma_min, int64_t count);
  static std::vector<double> exponential(double sigma_max, double sigma_min, int64_t count);
  static std::vector<double> beta_quantiles(double sigma_max, double sigma_min, int64_t count);

  double smallest() const { return sigmas_.front(); }
  double largest() const { return sigmas_.back(); }
  double smallest_log() const { return log_sigmas_.front(); }
  double largest_log() const { return log_sigmas_.back(); }

 private:
  std::vector<float> sigmas_;      // [T], ascending
  std::vector<float> log_sigmas_;  // [T]
};

struct SigmaRange {
  double max;
  double min;
};

// The range given, unless the config sets its own ends.
SigmaRange sigma_range(const SchedulerConfig& config, double largest, double smallest);

// One of the three schedules when the config asks for one, else empty.
std::vector<double> special_sigmas(const SchedulerConfig& config, SigmaRange range, int64_t count);

}  // namespace prefusion::schedulers

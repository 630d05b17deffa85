#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "schedulers/noise_schedule.h"

namespace prefusion::training {

// Weights of timesteps by name (losses/timestep_weights.h).
struct TimestepWeighting {
  std::string name = "none";
  double gamma = 5;  // of min-snr

  // "NAME" or "min-snr:GAMMA". Usage error, naming `flag`, for another text.
  static TimestepWeighting parse(const std::string& text, const std::string& flag);

  bool is_none() const { return name == "none"; }

  // fp32 weights in the shape of `timesteps`. Usage error when it is not defined for the schedule's predictions.
  at::Tensor at(const at::Tensor& timesteps, const schedulers::NoiseSchedule& schedule) const;
};

}  // namespace prefusion::training

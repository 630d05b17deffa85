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

  // Usage error when the weighting is not defined for predictions of this type.
  void check_defined_for(PredictionType type) const;

  // fp32 weights in the shape of `timesteps`; only for predictions the weighting is defined for.
  at::Tensor at(const at::Tensor& timesteps, const schedulers::NoiseSchedule& schedule) const;
};

}  // namespace prefusion::training

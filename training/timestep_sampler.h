#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/rng.h"
#include "schedulers/noise_schedule.h"

namespace prefusion::training {

// Which timestep a group trains at. A position u in (0, 1) in the schedule, u near 1 the noisiest, is drawn and mapped
// to the timesteps low .. high-1. In a flow model u is thus the noise level before it is shifted.
class TimestepSampler {
 public:
  // `sampling`:
  //   uniform
  //   logit-normal[:MEAN,STD]  u = sigmoid(MEAN + STD * normal), default 0,1; mode[:SCALE]  u = 1 - v - SCALE *
  //                            (cos(pi v / 2)^2 - 1 + v) with v uniform, default 1.29 (both: arXiv 2403.03206)
  //   list:T1,T2,...           one of these timesteps, equally likely
  // `range`: "LOW:HIGH" for LOW <= t < HIGH, empty for the whole schedule. Usage error for other texts, and for
  // timesteps the schedule does not have.
  static TimestepSampler parse(const std::string& sampling, const std::string& range, int64_t num_train_timesteps);

  // The same for a model's schedule. Timesteps in the texts are the numbers that the denoiser is told, sigma * T in a
  // flow model: a range takes the noise levels inside, a list the nearest ones. Usage error when no level lies in a
  // range.
  static TimestepSampler parse(const std::string& sampling, const std::string& range,
                               const schedulers::NoiseSchedule& schedule);

  // A function of the key alone.
  int64_t draw(const DrawKey& key) const;

 private:
  enum class Kind { kUniform, kLogitNormal, kMode, kList };

  Kind kind_ = Kind::kUniform;
  int64_t low_ = 0, high_ = 0;
  double first_ = 0, second_ = 0;  // MEAN, STD or SCALE
  std::vector<int64_t> list_;
};

// A fixed grid for measurements: the middles of `num_points` equal bands of the schedule, low noise first.
std::vector<int64_t> timestep_grid(int64_t num_train_timesteps, int64_t num_points);

}  // namespace prefusion::training

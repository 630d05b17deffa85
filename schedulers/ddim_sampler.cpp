#include "schedulers/ddim_sampler.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"

namespace prefusion::schedulers {

DdimSampler::DdimSampler(StochasticDdim ddim, int64_t num_inference_steps)
    : ddim_(std::move(ddim)), schedule_(ddim_.config()) {
  for (const DdimStep& step : ddim_.steps(num_inference_steps)) {
    const auto timestep = static_cast<double>(step.timestep);
    steps_.push_back({.time = timestep,
                      .next_time = static_cast<double>(step.previous_timestep),
                      .timestep = timestep,
                      .has_variance = step.has_variance});
  }
}

void DdimSampler::check_noise(double noise) const {
  check_usage(noise >= 0 && noise <= 1, "eta of a trajectory must be between 0 and 1, found ", noise);
}

GaussianStep DdimSampler::step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& times,
                               const at::Tensor& next_times, double noise) const {
  return ddim_.step(prediction, sample, times, next_times, /*eta=*/noise);
}

at::Tensor DdimSampler::predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                                      const at::Tensor& times) const {
  return ddim_.predict_clean(prediction, sample, times);
}

at::Tensor DdimSampler::add_noise(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& times) const {
  return schedule_.add_noise(latents, noise, times);
}

at::Tensor DdimSampler::step_size(const at::Tensor& times, const at::Tensor& /*next_times*/) const {
  return at::ones_like(times, at::kFloat);
}

}  // namespace prefusion::schedulers

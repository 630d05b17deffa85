#include "schedulers/stochastic_flow.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "schedulers/flow_sde.h"
#include "schedulers/flow_sigmas.h"
#include "schedulers/per_item.h"
#include "schedulers/sigma_schedule.h"

namespace prefusion::schedulers {

StochasticFlow::StochasticFlow(const SchedulerConfig& config, std::optional<int64_t> image_tokens,
                               int64_t num_inference_steps, FlowSde sde)
    : config_(resolve_for(config, SchedulerClass::kFlowEuler)), sde_(sde) {
  check_input(!config_.invert_sigmas, config_.where,
              ": 'invert_sigmas' = true is not supported by the stochastic steps of a flow");
  check_input(!config_.stochastic_sampling, config_.where,
              ": 'stochastic_sampling' = true, fresh noise at every level, is not supported by the stochastic steps of "
              "a flow");
  const std::vector<double> sigmas = flow_match_sigmas(config_, image_tokens, num_inference_steps);
  for (size_t i = 0; i < sigmas.size(); ++i) {
    // Levels are fp32 wherever they are used. Next to 1 the noise of a step would explode.
    constexpr float kPure = 1 - 1e-6F;
    const auto level = [&](size_t index) {
      const auto sigma = index < sigmas.size() ? static_cast<float>(sigmas[index]) : 0.0F;
      return sigma > kPure ? 1.0F : sigma;
    };
    const float sigma = level(i), next = level(i + 1);
    steps_.push_back({.time = sigma,
                      .next_time = next,
                      .timestep = sigma * static_cast<float>(config_.num_train_timesteps),
                      .has_variance = next > 0 && next < sigma});
  }
}

void StochasticFlow::check_noise(double noise) const {
  check_usage(noise >= 0 && noise <= 10, "the noise level of a flow's steps must be between 0 and 10, found ", noise);
}

at::Tensor StochasticFlow::denoiser_timesteps(const at::Tensor& times) const {
  return times * static_cast<double>(config_.num_train_timesteps);
}

GaussianStep StochasticFlow::step(const at::Tensor& prediction, const at::Tensor& sample, const at::Tensor& times,
                                  const at::Tensor& next_times, double noise) const {
  const FlowSdeStep found = sde_ == FlowSde::kDanceGrpo
                                ? dance_grpo_step(prediction, sample, times, next_times, noise)
                                : flow_grpo_step(prediction, sample, times, next_times, noise, second_time());
  return found.step;
}

at::Tensor StochasticFlow::predict_clean(const at::Tensor& prediction, const at::Tensor& sample,
                                         const at::Tensor& times) const {
  const at::ScalarType dtype = wide_type(prediction);
  return sample.to(dtype) - align_to(times, sample).to(dtype) * prediction.to(dtype);
}

at::Tensor StochasticFlow::add_noise(const at::Tensor& latents, const at::Tensor& noise,
                                     const at::Tensor& times) const {
  const at::Tensor sigma = align_to(times, latents).to(latents.scalar_type());
  return (1 - sigma) * latents + sigma * noise;
}

at::Tensor StochasticFlow::step_size(const at::Tensor& times, const at::Tensor& next_times) const {
  return times - next_times;
}

}  // namespace prefusion::schedulers

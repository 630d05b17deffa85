#include "schedulers/flow_schedulers.h"

#include <ATen/ATen.h>

#include "schedulers/flow_sigmas.h"
#include "schedulers/per_item.h"
#include "schedulers/solver_point.h"

namespace prefusion::schedulers {
namespace {

// The first `count` of them as what the network is told, rounded to single precision like the sigmas.
std::vector<double> told_timesteps(const SchedulerConfig& config, const at::Tensor& sigmas, int64_t count) {
  const at::Tensor values =
      (sigmas.slice(0, 0, count) * static_cast<double>(config.num_train_timesteps)).to(at::kDouble).contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + count};
}

}  // namespace

InputScales FlowScheduler::input_scales(size_t index) const {
  return flow_input_scales(sigmas_, index);
}

at::Tensor FlowScheduler::add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const {
  const at::Tensor sigma = sigmas_[static_cast<int64_t>(index)];
  return sigma * noise + (1.0 - sigma) * clean;
}

FlowEulerScheduler::FlowEulerScheduler(const SchedulerConfig& config)
    : FlowScheduler(resolve_for(config, SchedulerClass::kFlowEuler)) {}

void FlowEulerScheduler::set_timesteps(int64_t num_inference_steps) {
  sigmas_ = sigma_tensor(flow_match_sigmas(config_, image_tokens_, num_inference_steps), 0.0);
  if (config_.invert_sigmas) sigmas_ = 1 - sigmas_;
  timesteps_ = told_timesteps(config_, sigmas_, num_inference_steps);
}

// Inverted levels count the signal, and the velocity points from noise to data.
InputScales FlowEulerScheduler::input_scales(size_t index) const {
  const InputScales scales = FlowScheduler::input_scales(index);
  return config_.invert_sigmas ? InputScales{.signal = scales.noise, .noise = -scales.signal} : scales;
}

at::Tensor FlowEulerScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                                    const NoiseSource& noise) {
  const at::Tensor wide = sample.to(at::kFloat);
  const at::Tensor sigma = sigmas_[static_cast<int64_t>(index)];
  const at::Tensor next_sigma = sigmas_[static_cast<int64_t>(index) + 1];
  if (!config_.stochastic_sampling) {
    return (wide + (next_sigma - sigma) * prediction).to(prediction.scalar_type());
  }
  const at::Tensor clean = wide - sigma * prediction;
  return ((1.0 - next_sigma) * clean + next_sigma * noise(wide)).to(prediction.scalar_type());
}

FlowHeunScheduler::FlowHeunScheduler(const SchedulerConfig& config)
    : FlowScheduler(resolve_for(config, SchedulerClass::kFlowHeun)) {}

void FlowHeunScheduler::set_timesteps(int64_t num_inference_steps) {
  const std::vector<double> sigmas = flow_match_sigmas(config_, image_tokens_, num_inference_steps);
  // Every level but the first is visited twice: at the end of one step and at the start of the next.
  std::vector<double> doubled = {sigmas.front()};
  for (size_t i = 1; i < sigmas.size(); ++i) doubled.insert(doubled.end(), 2, sigmas[i]);
  sigmas_ = sigma_tensor(doubled, 0.0);
  timesteps_ = told_timesteps(config_, sigmas_, static_cast<int64_t>(doubled.size()));
  first_velocity_ = at::Tensor();
  start_ = at::Tensor();
}

at::Tensor FlowHeunScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                                   const NoiseSource&) {
  const auto position = static_cast<int64_t>(index);
  const at::Tensor wide = sample.to(at::kFloat);
  // Through the clean latents as diffusers has it: where sigma is small this costs digits, which show in the picture.
  const at::Tensor clean = wide - prediction * sigmas_[position];
  const at::Tensor velocity = (wide - clean) / sigmas_[position];
  if (!first_velocity_.defined()) {
    first_velocity_ = velocity;
    start_ = wide;
    return (start_ + velocity * (sigmas_[position + 1] - sigmas_[position])).to(prediction.scalar_type());
  }
  const at::Tensor step_size = sigmas_[position] - sigmas_[position - 1];
  const at::Tensor next = start_ + 0.5 * (first_velocity_ + velocity) * step_size;
  first_velocity_ = at::Tensor();
  start_ = at::Tensor();
  return next.to(prediction.scalar_type());
}

void FlowHeunScheduler::keep_items(const at::Tensor& items) {
  select_items(first_velocity_, items);
  select_items(start_, items);
}

}  // namespace prefusion::schedulers

#include "schedulers/flow_sigmas.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "schedulers/sigma_schedule.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {
namespace {

// shift * sigma / (1 + (shift - 1) * sigma), in the precision of T like all below.
template <typename T>
void shift_by(double shift, std::vector<T>& sigmas) {
  for (T& sigma : sigmas) sigma = static_cast<T>(shift) * sigma / (1 + static_cast<T>(shift - 1) * sigma);
}

// The shift of a picture's size: a factor where it is "linear", its logarithm where it is "exponential".
template <typename T>
void shift_dynamically(const SchedulerConfig& config, double mu, std::vector<T>& sigmas) {
  const T factor = static_cast<T>(config.time_shift_type == "linear" ? mu : std::exp(mu));
  for (T& sigma : sigmas) sigma = factor / (factor + (1 / sigma - 1));
}

// Stretches the schedule so that it ends at the level asked for.
template <typename T>
void stretch_to(double terminal, std::vector<T>& sigmas) {
  const T scale = (1 - sigmas.back()) / static_cast<T>(1 - terminal);
  check_usage(scale > 0, "'shift_terminal' of this model needs at least 2 sampling steps");
  for (T& sigma : sigmas) sigma = 1 - (1 - sigma) / scale;
}

template <typename T>
std::vector<double> shifted(const SchedulerConfig& config, std::optional<int64_t> image_tokens, std::vector<T> sigmas) {
  if (config.use_dynamic_shifting) {
    shift_dynamically(config, dynamic_shift(config, image_tokens), sigmas);
  } else {
    shift_by(config.shift, sigmas);
  }
  if (config.shift_terminal) stretch_to(*config.shift_terminal, sigmas);
  return {sigmas.begin(), sigmas.end()};
}

// The smallest and the largest level of training.
SigmaRange training_range(const SchedulerConfig& config) {
  const at::Tensor sigmas = flow_training_sigmas(config);
  return {.max = sigmas[-1].item<double>(), .min = sigmas[0].item<double>()};
}

}  // namespace

double dynamic_shift(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens) {
  check_run(image_tokens.has_value(), "a schedule with dynamic shifting must be told the picture's number of tokens");
  const auto base_length = static_cast<double>(resolved.base_image_seq_len);
  const double slope =
      (resolved.max_shift - resolved.base_shift) / (static_cast<double>(resolved.max_image_seq_len) - base_length);
  return static_cast<double>(*image_tokens) * slope + (resolved.base_shift - slope * base_length);
}

std::vector<double> flow_match_sigmas(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens,
                                      int64_t num_inference_steps) {
  check_num_inference_steps(resolved, num_inference_steps);
  std::vector<double> sigmas;
  if (resolved.sigmas_linear) {
    const std::vector<double> spaced = linspace(1, 1 / static_cast<double>(num_inference_steps), num_inference_steps);
    sigmas = shifted(resolved, image_tokens, std::vector<float>(spaced.begin(), spaced.end()));
  } else {
    const auto total = static_cast<double>(resolved.num_train_timesteps);
    const SigmaRange range = training_range(resolved);
    sigmas = linspace(range.max * total, range.min * total, num_inference_steps);
    for (double& sigma : sigmas) sigma /= total;
    sigmas = shifted(resolved, image_tokens, sigmas);
  }
  const SigmaRange range = sigma_range(resolved, sigmas.front(), sigmas.back());
  const std::vector<double> special = special_sigmas(resolved, range, num_inference_steps);
  return special.empty() ? sigmas : special;
}

std::vector<double> dpm_flow_sigmas(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens,
                                    int64_t num_inference_steps) {
  check_num_inference_steps(resolved, num_inference_steps);
  const double shift = resolved.use_dynamic_shifting ? std::exp(dynamic_shift(resolved, image_tokens)) : resolved.shift;
  const double last = 1 / static_cast<double>(resolved.num_train_timesteps);
  std::vector<double> sigmas = linspace(1, last, num_inference_steps + 1);
  for (double& sigma : sigmas) sigma = 1 - sigma;
  shift_by(shift, sigmas);
  return {sigmas.rbegin(), sigmas.rend() - 1};
}

std::vector<double> unipc_flow_sigmas(const SchedulerConfig& resolved, std::optional<int64_t> image_tokens,
                                      int64_t num_inference_steps) {
  check_num_inference_steps(resolved, num_inference_steps);
  const double last = 1 / static_cast<double>(resolved.num_train_timesteps);
  std::vector<double> sigmas = linspace(1, last, num_inference_steps + 1);
  sigmas.pop_back();
  sigmas = shifted(resolved, image_tokens, std::move(sigmas));
  constexpr double kBelowOne = 1e-6;  // keeps the first logarithm of the signal finite
  if (std::fabs(sigmas.front() - 1) < kBelowOne) sigmas.front() -= kBelowOne;
  return sigmas;
}

std::vector<double> flow_timesteps(const SchedulerConfig& resolved, const std::vector<double>& sigmas) {
  std::vector<double> timesteps = sigmas;
  for (double& timestep : timesteps) timestep *= static_cast<double>(resolved.num_train_timesteps);
  return timesteps;
}

at::Tensor flow_training_sigmas(const SchedulerConfig& resolved) {
  const at::NoGradGuard no_grad;
  const int64_t total = resolved.num_train_timesteps;
  const at::Tensor sigmas = at::arange(1, total + 1, at::kFloat) / static_cast<double>(total);
  if (resolved.use_dynamic_shifting) return sigmas;
  return resolved.shift * sigmas / (1 + (resolved.shift - 1) * sigmas);
}

InputScales flow_input_scales(const at::Tensor& sigmas, size_t index) {
  const double sigma = sigmas[static_cast<int64_t>(index)].item<double>();
  return {.signal = 1 - sigma, .noise = sigma};
}

}  // namespace prefusion::schedulers

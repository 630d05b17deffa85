#include "schedulers/timestep_spacing.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace prefusion::schedulers {
namespace {

// numpy.arange(first, 0, -step): the number of entries is rounded up, so with an inexact step there may be one more
// than expected.
std::vector<double> arange_down(double first, double step) {
  const auto count = static_cast<int64_t>(std::ceil((0.0 - first) / -step));
  const double delta = (first - step) - first;
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(first + static_cast<double>(i) * delta);
  return values;
}

// count multiples of floor(range / divisor) in descending order, plus the config's offset.
std::vector<double> leading(const SchedulerConfig& config, int64_t range, int64_t count, int64_t divisor) {
  const int64_t ratio = range / divisor;
  std::vector<double> values;
  for (int64_t i = count - 1; i >= 0; --i) values.push_back(static_cast<double>(i * ratio + *config.steps_offset));
  return values;
}

std::vector<double> trailing(const SchedulerConfig& config, int64_t first, int64_t num_inference_steps) {
  const double ratio = static_cast<double>(config.num_train_timesteps) / static_cast<double>(num_inference_steps);
  std::vector<double> values = arange_down(static_cast<double>(first), ratio);
  for (double& value : values) value = std::nearbyint(value) - 1;
  return values;
}

void round_all(std::vector<double>& values) {
  for (double& value : values) value = std::nearbyint(value);
}

}  // namespace

std::vector<double> linspace(double first, double last, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count), first);
  if (count < 2) return values;
  const double step = (last - first) / static_cast<double>(count - 1);
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = static_cast<double>(i) * step + first;
  values.back() = last;
  return values;
}

void check_num_inference_steps(const SchedulerConfig& resolved, int64_t num_inference_steps) {
  check_usage(num_inference_steps >= 1 && num_inference_steps <= resolved.num_train_timesteps,
              "the number of sampling steps must be between 1 and the model's ", resolved.num_train_timesteps,
              " training timesteps, found ", num_inference_steps);
}

void check_timesteps(const SchedulerConfig& resolved, const std::vector<double>& timesteps) {
  check_usage(!timesteps.empty(), "this number of sampling steps leaves no timestep; use more steps");
  for (const double timestep : timesteps) {
    check_usage(timestep >= 0 && timestep < static_cast<double>(resolved.num_train_timesteps),
                "this number of sampling steps with 'timestep_spacing' = \"", *resolved.timestep_spacing,
                "\" and 'steps_offset' = ", *resolved.steps_offset, " needs timestep ", timestep,
                ", outside the model's 0 to ", resolved.num_train_timesteps - 1, "; use another number of steps");
  }
}

std::vector<double> spaced_timesteps(const SchedulerConfig& resolved, int64_t num_inference_steps, bool fractional) {
  check_num_inference_steps(resolved, num_inference_steps);
  const int64_t total = resolved.num_train_timesteps;
  std::vector<double> values;
  if (*resolved.timestep_spacing == "linspace") {
    values = linspace(0, static_cast<double>(total - 1), num_inference_steps);
    if (!fractional) round_all(values);
    std::reverse(values.begin(), values.end());
  } else if (*resolved.timestep_spacing == "leading") {
    values = leading(resolved, total, num_inference_steps, num_inference_steps);
  } else {
    values = trailing(resolved, total, num_inference_steps);
    // The surplus entry of an inexact step is timestep -1, which indexes no table.
    if (!fractional && values.size() > 1 && values.back() < 0) values.pop_back();
  }
  return values;
}

std::vector<double> solver_timesteps(const SchedulerConfig& resolved, int64_t num_inference_steps,
                                     int64_t last_timestep) {
  check_num_inference_steps(resolved, num_inference_steps);
  if (*resolved.timestep_spacing == "trailing") return trailing(resolved, last_timestep, num_inference_steps);
  std::vector<double> values;
  if (*resolved.timestep_spacing == "linspace") {
    values = linspace(0, static_cast<double>(last_timestep - 1), num_inference_steps + 1);
    round_all(values);
    std::reverse(values.begin(), values.end());
  } else {
    values = leading(resolved, last_timestep, num_inference_steps + 1, num_inference_steps + 1);
  }
  values.pop_back();
  return values;
}

}  // namespace prefusion::schedulers

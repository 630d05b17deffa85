#include "schedulers/inversion.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/per_item.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

// One step of the items that have not arrived.
struct DdimInversion::Climb {
  int64_t step;
  std::vector<int64_t> items;
  std::vector<int64_t> from;  // timesteps the items are at, -1: clean
  std::vector<int64_t> to;
};

namespace {

constexpr int64_t kClean = -1;

at::Tensor index_tensor(const std::vector<int64_t>& values, const at::Tensor& like) {
  return at::tensor(values, at::kLong).to(like.device());
}

// DDIM's step between two levels for a given noise; deviation is that of the noise still to be added.
at::Tensor move_level(const at::Tensor& sample, const at::Tensor& noise, const at::Tensor& alpha_from,
                      const at::Tensor& alpha_to, const at::Tensor& deviation) {
  const at::Tensor clean = (sample - (1 - alpha_from).sqrt() * noise) / alpha_from.sqrt();
  return alpha_to.sqrt() * clean + (1 - alpha_to - deviation.square()).sqrt() * noise;
}

}  // namespace

DdimInversion::DdimInversion(const SchedulerConfig& config, const InversionOptions& options)
    : config_(resolve_for(config, SchedulerClass::kDdim)),
      options_(options),
      alphas_cumprod_(make_alphas_cumprod(config_)) {
  check_usage(options.eta >= 0 && options.eta <= 1, "inversion eta must be between 0 and 1, found ", options.eta);
  const std::vector<double> descending = spaced_timesteps(config_, options.num_steps, /*fractional=*/false);
  check_timesteps(config_, descending);
  for (auto value = descending.rbegin(); value != descending.rend(); ++value) {
    grid_.push_back(static_cast<int64_t>(*value));
  }
}

at::Tensor DdimInversion::alphas(const at::Tensor& timesteps, const at::Tensor& like) const {
  return alphas_at(alphas_cumprod_, timesteps, at::ones({}, at::kFloat), like);
}

at::Tensor DdimInversion::advance(const at::Tensor& sample, const Climb& climb, const InversionDenoiser& denoiser,
                                  const InversionNoise& noise) const {
  const at::Tensor timesteps = index_tensor(climb.to, sample);
  const at::Tensor alpha_from = alphas(index_tensor(climb.from, sample), sample);
  const at::Tensor alpha_to = alphas(timesteps, sample);
  const auto predict_noise = [&](const at::Tensor& input) {
    const at::Tensor prediction = denoiser(input, timesteps, climb.items).to(sample.scalar_type());
    return split_prediction(config_.prediction_type, prediction, input, alpha_to.sqrt(), (1 - alpha_to).sqrt()).noise;
  };

  const at::Tensor none = at::zeros_like(alpha_to);
  at::Tensor predicted = predict_noise(sample);
  if (options_.renoise) {
    predicted = (predicted + predict_noise(move_level(sample, predicted, alpha_from, alpha_to, none))) / 2;
  }
  if (options_.eta == 0) return move_level(sample, predicted, alpha_from, alpha_to, none);
  const at::Tensor deviation = options_.eta * ((1 - alpha_from) / (1 - alpha_to) * (1 - alpha_to / alpha_from)).sqrt();
  return move_level(sample, predicted, alpha_from, alpha_to, deviation) +
         deviation * noise(sample, climb.items, climb.step).to(sample.scalar_type());
}

std::vector<int64_t> DdimInversion::read_targets(const at::Tensor& timesteps, int64_t num_items) const {
  check_run(timesteps.dim() == 1 && timesteps.size(0) == num_items && timesteps.scalar_type() == at::kLong,
            "inversion: timesteps must be int64 [", num_items, "], found ", shape_text(timesteps.sizes()));
  const at::Tensor host = timesteps.cpu().contiguous();
  const std::vector<int64_t> targets(host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + num_items);
  const int64_t last = config_.num_train_timesteps - 1;
  for (const int64_t target : targets) {
    check_run(target >= 0 && target <= last, "inversion: timestep ", target, " is outside 0 to ", last);
  }
  return targets;
}

InvertedLatents DdimInversion::invert(const at::Tensor& latents, const at::Tensor& timesteps,
                                      const InversionDenoiser& denoiser, const InversionNoise& noise) const {
  const at::NoGradGuard no_grad;
  const std::vector<int64_t> targets = read_targets(timesteps, latents.size(0));
  const at::Tensor clean = latents.to(wide_type(latents));
  at::Tensor sample = clean.clone();
  std::vector<int64_t> levels(targets.size(), kClean);
  for (size_t step = 0; levels != targets; ++step) {
    // Beyond the grid every item goes straight to its target.
    const int64_t ceiling = step < grid_.size() ? grid_[step] : config_.num_train_timesteps - 1;
    Climb climb{.step = static_cast<int64_t>(step)};
    for (size_t i = 0; i < targets.size(); ++i) {
      if (levels[i] == targets[i]) continue;
      climb.items.push_back(static_cast<int64_t>(i));
      climb.from.push_back(levels[i]);
      levels[i] = std::min(ceiling, targets[i]);
      climb.to.push_back(levels[i]);
    }
    const at::Tensor rows = index_tensor(climb.items, sample);
    sample.index_copy_(0, rows, advance(sample.index_select(0, rows), climb, denoiser, noise));
  }
  const at::Tensor alpha = alphas(timesteps.to(clean.device()), clean);
  return {.noisy_latents = sample, .noise = (sample - alpha.sqrt() * clean) / (1 - alpha).sqrt()};
}

}  // namespace prefusion::schedulers

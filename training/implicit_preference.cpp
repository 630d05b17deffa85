#include "training/implicit_preference.h"

#include <ATen/ATen.h>

#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/statistics.h"
#include "losses/registry.h"
#include "training/encoded_data.h"
#include "training/timestep_sampler.h"

namespace prefusion::training {
namespace {

AlignOptions reading_options(const PreferencePairsOptions& options, const std::filesystem::path& model_dir,
                             uint64_t seed) {
  AlignOptions align;
  align.model = model_dir;
  align.data = {options.data};
  align.eval_data = options.data;
  align.eval_groups = options.num_pairs;
  align.batch_size = options.batch_size;
  align.no_cache = true;
  align.no_hflip = true;
  align.seed = seed;
  align.progress = false;
  return align;
}

// A network asked for one user, whatever else it is asked for.
class UserNetwork : public unet::Denoiser {
 public:
  // user_states [M, U]
  UserNetwork(unet::Denoiser& network, at::Tensor user_states)
      : network_(network), user_states_(std::move(user_states)) {}

  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const unet::Conditioning& conditioning) override {
    unet::Conditioning known = conditioning;
    known.user_states = user_states_.unsqueeze(0).expand({noisy_latents.size(0), -1, -1});
    return network_.forward(noisy_latents, timesteps, known);
  }
  const unet::DenoiserInfo& info() const override { return network_.info(); }

 private:
  unet::Denoiser& network_;
  at::Tensor user_states_;
};

Interval accuracy_of(const at::Tensor& margins) {
  const double wins = (margins > 0).sum().item<double>() + 0.5 * (margins == 0).sum().item<double>();
  const Proportion share = wilson_proportion(wins, static_cast<double>(margins.numel()));
  return {.value = share.rate, .low = share.low, .high = share.high};
}

Interval mean_of(const at::Tensor& margins) {
  const at::Tensor values = margins.contiguous();
  std::vector<int64_t> clusters(static_cast<size_t>(values.numel()));
  std::iota(clusters.begin(), clusters.end(), int64_t{0});
  return bootstrap_mean({values.data_ptr<double>(), clusters.size()}, clusters, /*seed=*/0);
}

}  // namespace

ImplicitPreferenceTest::ImplicitPreferenceTest(const PreferencePairsOptions& options,
                                               const std::filesystem::path& model_dir,
                                               std::shared_ptr<unet::Denoiser> baseline, uint64_t seed,
                                               at::ScalarType dtype, at::Device device)
    : schedule_(schedulers::read_scheduler_config(model_dir)) {
  const AlignOptions reading = reading_options(options, model_dir, seed);
  const auto data = open_encoded_data(reading, losses::DataKind::kPair, dtype, device);
  batches_ = data->held_out();
  check_input(!batches_.empty(), options.data.string(), ": holds no labelled pair");
  timesteps_ = timestep_grid(schedule_.num_train_timesteps(), options.num_timesteps);
  step_options_.scaling = data->scaling();
  step_options_.seed = seed;
  step_options_.dtype = dtype;
  baseline_errors_ = errors(*baseline);
}

at::Tensor ImplicitPreferenceTest::errors(unet::Denoiser& network, const at::Tensor& user_states) const {
  UserNetwork for_user(network, user_states);
  const TrainStep step(user_states.defined() ? static_cast<unet::Denoiser&>(for_user) : network, nullptr, schedule_,
                       losses::find_objective("diffusion-dpo"), step_options_);
  std::vector<at::Tensor> rows;
  for (EncodedBatch batch : batches_) {
    std::vector<at::Tensor> of_timesteps;
    for (size_t band = 0; band < timesteps_.size(); ++band) {
      // Noise and posterior samples of their own at each timestep.
      for (GroupRef& group : batch.groups) group.draw = band;
      const auto at_band = at::full({batch.size()}, timesteps_[band], batch.mean.options().dtype(at::kLong));
      of_timesteps.push_back(step.policy_errors(batch, at_band));
    }
    rows.push_back(at::stack(of_timesteps, 1));
  }
  return at::cat(rows).to(at::kCPU, at::kDouble);
}

ImplicitPreference ImplicitPreferenceTest::measure(unet::Denoiser& model, const at::Tensor& user_states) const {
  const at::Tensor reward = (baseline_errors_ - errors(model, user_states)).mean(1);  // [N, 2]
  const at::Tensor margins = reward.select(1, 0) - reward.select(1, 1);
  return {.num_pairs = margins.numel(), .accuracy = accuracy_of(margins), .margin = mean_of(margins)};
}

}  // namespace prefusion::training

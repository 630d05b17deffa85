#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/rng.h"
#include "kernels/item_error/item_error.h"
#include "losses/online/advantages.h"
#include "training/online/decisions.h"
#include "training/online/old_policy.h"
#include "training/online/online_method.h"
#include "training/online/rollout.h"

namespace prefusion::training {
namespace {

// The samples of a round, which is all that is kept of their trajectories.
struct Samples {
  int64_t round = 0;
  std::vector<pipelines::KeyedRequest> requests;  // N
  pipelines::GuidedConditioning conditioning;     // N rows
  at::Tensor latents;                             // [N, C, h, w] clean
  at::Tensor reward;                              // [P, k] fp32 on the CPU
};

// One micro-step: groups of samples, each sample at a timestep of its own.
struct Portion {
  int64_t first_group, num_groups;
  int64_t pass;  // which of its timesteps, over all inner epochs
};

// Its samples, M rows.
struct NoisedSamples {
  at::Tensor latents, noise, noisy_latents;  // [M, C, h, w]
  at::Tensor times;                          // [M] of the sampler's type
  pipelines::GuidedConditioning conditioning;
};

struct Predictions {
  at::Tensor now, old, reference;  // [M, C, h, w] fp32; `now` carries the graph
};

// Samples noised again and denoised by the policy, by the policy that sampled, and by the reference: each once at every
// timestep of the sampling grid in an inner epoch, as the public code of DiffusionNFT does.
class ForwardMethod : public OnlineMethod {
 public:
  explicit ForwardMethod(const OnlineRun& run)
      : run_(run),
        sampler_(run.options, run.policy.denoiser, run.dtype, run.device),
        old_(run.policy),
        sampling_(sampler_.policy()) {}

  void begin_round(int64_t round, int64_t steps_done) override {
    if (round > 0) old_.follow(old_decay(steps_done));
    old_.with_network([&](unet::Denoiser&) {
      const Rollout rollout = sampler_.sample_round(round);
      use_samples(samples_of(round, rollout.trajectory.latents.select(1, -1).contiguous(), rollout.reward));
    });
  }

  int64_t num_micro_steps() const override { return static_cast<int64_t>(portions_.size()); }
  int64_t num_samples() const override { return samples_->reward.numel(); }
  const PromptRounds& prompts() const override { return sampler_.prompts(); }
  std::string description() const override {
    const OnlineOptions& online = run_.options.online;
    return concat("rounds of ", online.prompts_per_round, " x ", online.group_size, " samples");
  }

  MicroStep micro_step(int64_t index, TraceWriter* trace) override {
    const Portion& portion = portions_[static_cast<size_t>(index)];
    const NoisedSamples noised = noised_samples(portion);
    const Predictions predictions = predict(noised);
    const losses::ForwardBatch batch = batch_of(portion, noised, predictions);
    if (trace != nullptr) record(*trace, portion, noised, predictions, batch);
    const auto loss = std::get<losses::ForwardLoss>(run_.objective.group_loss);
    MicroStep micro{.loss = loss(batch, run_.params).mean(), .metrics = round_metrics_, .ids = {}};
    micro.metrics["drift"] = batch.drift.detach().mean().to(at::kDouble);
    for (int64_t i = 0; i < portion.num_groups; ++i) {
      const std::string& prompt = samples_->requests[(portion.first_group + i) * group_size()].prompt;
      micro.ids += concat(micro.ids.empty() ? "" : ", ", "'", prompt, "'");
    }
    return micro;
  }

  TensorMap tensors() const override {
    TensorMap tensors = old_.state();
    tensors["latents"] = samples_->latents.cpu();
    tensors["reward"] = samples_->reward;
    return tensors;
  }

  void restore(int64_t round, const TensorMap& tensors, const std::string& where) override {
    check_round_tensors(tensors, {"latents", "reward"}, where);
    TensorMap old;
    for (const auto& [name, tensor] : tensors) {
      if (name.starts_with("old.")) old[name] = tensor;
    }
    old_.load_state(old, where);
    use_samples(samples_of(round, tensors.at("latents").to(run_.device), tensors.at("reward")));
  }

 private:
  // min(rate * step, largest), so that sampling is on policy at first.
  double old_decay(int64_t steps_done) const {
    return std::min(run_.params.get("old_decay_rate") * static_cast<double>(steps_done), run_.params.get("old_decay"));
  }

  Samples samples_of(int64_t round, at::Tensor latents, at::Tensor reward) {
    Samples samples{.round = round,
                    .requests = sampler_.prompts().requests_of(round, run_.options.online.group_size),
                    .conditioning = {},
                    .latents = std::move(latents),
                    .reward = std::move(reward)};
    samples.conditioning =
        pipelines::encode_requests(sampler_.pipeline(), samples.requests, {.scale = run_.options.online.guidance});
    return samples;
  }

  void use_samples(Samples samples) {
    samples_ = std::move(samples);
    const at::Tensor& reward = samples_->reward;
    advantage_ = losses::standardised_advantage(reward, losses::AdvantageScope::kGroup);
    round_metrics_ = reward_metrics(reward);
    plan_portions();
  }

  // Every group at all its timesteps in each inner epoch, in an order that is the round's own.
  void plan_portions() {
    const AlignOptions& options = run_.options;
    const int64_t passes = num_passes();
    portions_.clear();
    for (int64_t epoch = 0; epoch < options.online.inner_epochs; ++epoch) {
      std::vector<Portion> planned;
      for (int64_t first = 0; first < samples_->reward.size(0); first += options.batch_size) {
        const int64_t count = std::min(options.batch_size, samples_->reward.size(0) - first);
        for (int64_t pass = 0; pass < passes; ++pass) planned.push_back({first, count, epoch * passes + pass});
      }
      const DrawKey key{options.seed, static_cast<uint64_t>(samples_->round), static_cast<uint64_t>(epoch)};
      for (const int64_t i : random_permutation(static_cast<int64_t>(planned.size()), key, RandomPurpose::kSample)) {
        portions_.push_back(planned[i]);
      }
    }
  }

  int64_t group_size() const { return samples_->reward.size(1); }
  int64_t num_passes() const { return static_cast<int64_t>(sampling_.sampler->steps().size()); }

  // Everything random about training on a sample comes from draws of this key.
  DrawKey training_key(int64_t item, uint64_t draw) const {
    const DrawKey key{run_.options.seed, static_cast<uint64_t>(item), static_cast<uint64_t>(samples_->round)};
    return {.seed = key.seed, .item = random_stream(key, RandomPurpose::kTimestep), .draw = draw};
  }

  // Each sample goes through the grid in an order of its own, a new one in every inner epoch.
  double time_of(int64_t item, int64_t pass) const {
    const int64_t passes = num_passes();
    const DrawKey key = training_key(item, static_cast<uint64_t>(pass / passes));
    const int64_t step = random_permutation(passes, key, RandomPurpose::kTimestep)[pass % passes];
    return sampling_.sampler->steps()[static_cast<size_t>(step)].time;
  }

  NoisedSamples noised_samples(const Portion& portion) const {
    const int64_t begin = portion.first_group * group_size(), end = begin + portion.num_groups * group_size();
    NoisedSamples noised;
    noised.latents = samples_->latents.slice(0, begin, end);
    std::vector<double> times;
    std::vector<at::Tensor> noise;
    for (int64_t i = begin; i < end; ++i) {
      times.push_back(time_of(i, portion.pass));
      noise.push_back(philox_randn(noised.latents.sizes().slice(1),
                                   training_key(i, static_cast<uint64_t>(portion.pass)), RandomPurpose::kNoise));
    }
    noised.times = at::tensor(times, at::kDouble).to(run_.device, sampling_.sampler->time_type());
    noised.noise = at::stack(noise).to(run_.device);
    noised.noisy_latents = sampling_.sampler->add_noise(noised.latents, noised.noise, noised.times);
    noised.conditioning =
        pipelines::select_rows(samples_->conditioning, at::arange(begin, end, noised.times.options().dtype(at::kLong)));
    return noised;
  }

  Predictions predict(const NoisedSamples& noised) {
    const auto predict = [&](unet::Denoiser& network) {
      return sampling_.predict(network, noised.noisy_latents, noised.times, noised.conditioning).to(at::kFloat);
    };
    Predictions predictions;
    old_.with_network([&](unet::Denoiser& network) { predictions.old = predict(network); });
    run_.reference->with_network([&](unet::Denoiser& network) { predictions.reference = predict(network); });
    predictions.now = predict(*run_.policy.denoiser);
    return predictions;
  }

  // Rows of samples to [B, k, ...].
  at::Tensor grouped(const at::Tensor& rows) const {
    std::vector<int64_t> shape = {rows.size(0) / group_size(), group_size()};
    shape.insert(shape.end(), rows.sizes().begin() + 1, rows.sizes().end());
    return rows.reshape(shape);
  }

  losses::ForwardBatch batch_of(const Portion& portion, const NoisedSamples& noised,
                                const Predictions& predictions) const {
    const auto denoised = [&](const at::Tensor& prediction) {
      return grouped(sampling_.sampler->predict_clean(prediction, noised.noisy_latents, noised.times));
    };
    return {.denoised = denoised(predictions.now),
            .denoised_old = denoised(predictions.old),
            .latents = grouped(noised.latents),
            .advantage = of_groups(advantage_, portion),
            .drift = grouped(kernels::item_error(predictions.now, predictions.reference))};
  }

  at::Tensor of_groups(const at::Tensor& values, const Portion& portion) const {
    return values.slice(0, portion.first_group, portion.first_group + portion.num_groups).to(run_.device);
  }

  void record(TraceWriter& trace, const Portion& portion, const NoisedSamples& noised, const Predictions& predictions,
              const losses::ForwardBatch& batch) const {
    trace.keep("latents", batch.latents);
    trace.keep("noise", grouped(noised.noise));
    trace_times(trace, *sampling_.sampler, grouped(noised.times));
    trace.keep("noisy_latents", grouped(noised.noisy_latents));
    trace.keep("prediction", grouped(predictions.now));
    trace.keep("prediction_old", grouped(predictions.old));
    trace.keep("prediction_ref", grouped(predictions.reference));
    trace.keep("drift", batch.drift);
    trace.keep("reward", of_groups(samples_->reward, portion));
    trace.keep("advantage", batch.advantage);
    const at::Tensor first_rows =
        at::arange(portion.num_groups, noised.times.options().dtype(at::kLong)) * group_size();
    trace_conditioning(trace, pipelines::select_rows(noised.conditioning, first_rows));
    trace.keep("micro_groups", at::full({1}, portion.num_groups, at::kLong));
  }

  OnlineRun run_;
  RolloutSampler sampler_;
  OldPolicy old_;
  pipelines::SamplingPolicy sampling_;
  std::optional<Samples> samples_;
  at::Tensor advantage_;  // [P, k]
  std::vector<Portion> portions_;
  std::map<std::string, at::Tensor> round_metrics_;
};

}  // namespace

std::unique_ptr<OnlineMethod> make_forward_method(const OnlineRun& run) {
  return std::make_unique<ForwardMethod>(run);
}

}  // namespace prefusion::training

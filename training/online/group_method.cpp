#include <ATen/ATen.h>

#include <optional>

#include "core/error.h"
#include "core/rng.h"
#include "training/group_encoder.h"
#include "training/online/online_method.h"
#include "training/online/rollout.h"
#include "training/online/sample_groups.h"
#include "training/train_step_options.h"

namespace prefusion::training {
namespace {

// The samples of a round, which is all that is kept of their trajectories.
struct Samples {
  int64_t round = 0;
  std::vector<std::string> prompts;  // P
  at::Tensor latents;                // [P, k, C, h, w] clean
  at::Tensor reward;                 // [P, k] fp32 on the CPU
  unet::Conditioning conditioning;   // P rows, and one more of the empty prompt
};

// One micro-step: groups of the round in one inner epoch.
struct Portion {
  std::vector<int64_t> groups;
  int64_t epoch;
};

// Objectives on data, where the data are the policy's own samples put in order by their rewards: online DPO and its
// relatives. Noise, timesteps and dropped captions are drawn as for given data, a group being an item.
class GroupMethod : public OnlineMethod {
 public:
  explicit GroupMethod(const OnlineRun& run)
      : run_(run),
        objective_(*std::get<losses::GroupObjective>(run.objective.group_loss)),
        schedule_(schedulers::read_scheduler_config(run.options.model)),
        step_options_(train_step_options(run.options, objective_, run.params, run.policy, schedule_, run.dtype)),
        sampler_(run.options, run.policy.denoiser, run.dtype, run.device) {
    const auto& config = sampler_.pipeline().components().autoencoder->config();
    step_options_.scaling = {.scale = config.scaling_factor, .shift = config.shift_factor};
    step_options_.distilled_guidance = run.options.online.guidance;
    step_.emplace(*run.policy.denoiser, run.reference, schedule_, objective_, step_options_);
  }

  void begin_round(int64_t round, int64_t /*steps_done*/) override {
    const Rollout rollout = sampler_.sample_round(round);
    use_samples(round, rollout.trajectory.latents.select(1, -1), rollout.reward);
  }

  int64_t num_micro_steps() const override { return static_cast<int64_t>(portions_.size()); }
  int64_t num_samples() const override { return samples_->reward.numel(); }
  const PromptRounds& prompts() const override { return sampler_.prompts(); }
  std::string description() const override {
    const OnlineOptions& online = run_.options.online;
    return concat("rounds of ", online.prompts_per_round, " x ", online.group_size, " samples");
  }

  MicroStep micro_step(int64_t index, TraceWriter* trace) override {
    const EncodedBatch batch = batch_of(portions_[static_cast<size_t>(index)]);
    const StepTensors tensors = step_->forward(batch, step_->draw_timesteps(batch));
    if (trace != nullptr) record(*trace, tensors, batch);
    MicroStep micro{.loss = tensors.loss.loss, .metrics = tensors.loss.metrics, .ids = {}};
    micro.metrics.insert(round_metrics_.begin(), round_metrics_.end());
    for (const auto& id : batch.ids) micro.ids += concat(micro.ids.empty() ? "" : ", ", "'", id, "'");
    return micro;
  }

  Json fingerprint() const override {
    return {{"timestep_sampling", concat(run_.options.timestep_sampling, " ", run_.options.timestep_range)},
            {"empty_prompt_rate", run_.options.empty_prompt_rate}};
  }
  Metadata trace_metadata() const override { return objective_metadata(run_.options, run_.params); }

  TensorMap tensors() const override { return {{"latents", samples_->latents.cpu()}, {"reward", samples_->reward}}; }
  void restore(int64_t round, const TensorMap& tensors, const std::string& where) override {
    check_round_tensors(tensors, {"latents", "reward"}, where);
    use_samples(round, tensors.at("latents").to(run_.device).flatten(0, 1), tensors.at("reward"));
  }

 private:
  // latents [P * k, C, h, w], reward [P, k]
  void use_samples(int64_t round, const at::Tensor& latents, at::Tensor reward) {
    samples_ = Samples{.round = round,
                       .prompts = sampler_.prompts().prompts_of(round),
                       .latents = latents.to(at::kFloat).unflatten(0, reward.sizes()).contiguous(),
                       .reward = std::move(reward),
                       .conditioning = {}};
    std::vector<pipelines::KeyedRequest> requests = sampler_.prompts().requests_of(round, /*copies=*/1);
    requests.push_back({.prompt = "", .negative_prompt = "", .key = {}});
    samples_->conditioning = pipelines::encode_requests(sampler_.pipeline(), requests, {.scale = 1}).prompt;
    groups_ = plan_sample_groups(objective_.info.data, samples_->reward);
    round_metrics_ = reward_metrics(samples_->reward);
    plan_portions();
  }

  // Every group once in each inner epoch, in an order of its own.
  void plan_portions() {
    portions_.clear();
    const auto count = static_cast<int64_t>(groups_.size());
    for (int64_t epoch = 0; epoch < run_.options.online.inner_epochs; ++epoch) {
      const DrawKey key{run_.options.seed, static_cast<uint64_t>(samples_->round), static_cast<uint64_t>(epoch)};
      const std::vector<int64_t> order = random_permutation(count, key, RandomPurpose::kShuffle);
      for (int64_t begin = 0; begin < count; begin += run_.options.batch_size) {
        const int64_t end = std::min(begin + run_.options.batch_size, count);
        portions_.push_back({.groups = {order.begin() + begin, order.begin() + end}, .epoch = epoch});
      }
    }
  }

  // The group as a draw of an item of its own: no two groups of a run share one.
  GroupRef ref_of(int64_t group, int64_t epoch) const {
    const int64_t most_a_round = samples_->reward.numel();
    return {.item = samples_->round * most_a_round + group, .draw = static_cast<uint64_t>(epoch)};
  }

  EncodedBatch batch_of(const Portion& portion) const {
    EncodedBatch batch;
    std::vector<at::Tensor> means, labels, scores;
    std::vector<int64_t> prompt_rows;
    std::vector<uint8_t> is_dropped;
    const int64_t empty_prompt = samples_->reward.size(0);
    for (const int64_t index : portion.groups) {
      const SampleGroup& group = groups_[static_cast<size_t>(index)];
      const at::Tensor samples = at::tensor(group.samples, at::kLong);
      means.push_back(samples_->latents[group.prompt].index_select(0, samples.to(run_.device)));
      labels.push_back(at::tensor(group.labels, at::kFloat));
      scores.push_back(samples_->reward[group.prompt].index_select(0, samples));
      batch.groups.push_back(ref_of(index, portion.epoch));
      const auto& [item, draw] = batch.groups.back();
      const DrawKey key{run_.options.seed, static_cast<uint64_t>(item), draw};
      is_dropped.push_back(drops_caption(run_.options.empty_prompt_rate, key) ? 1 : 0);
      prompt_rows.push_back(is_dropped.back() != 0 ? empty_prompt : group.prompt);
      batch.ids.push_back(samples_->prompts[static_cast<size_t>(group.prompt)]);
    }
    const LatentScaling& scaling = step_options_.scaling;
    batch.mean = at::stack(means) / scaling.scale + scaling.shift;
    batch.std = at::zeros_like(batch.mean);
    batch.labels = at::stack(labels).to(run_.device);
    batch.scores = at::stack(scores).to(run_.device);
    batch.is_caption_dropped = at::tensor(is_dropped, at::kByte).to(at::kBool).to(run_.device);
    batch.users.resize(batch.groups.size());
    condition(at::tensor(prompt_rows, at::kLong).to(run_.device), batch);
    return batch;
  }

  void condition(const at::Tensor& rows, EncodedBatch& batch) const {
    const unet::Conditioning chosen = unet::select_rows(samples_->conditioning, rows);
    batch.prompts = {chosen.encoder_hidden_states, chosen.encoder_mask, chosen.pooled};
    if (!chosen.time_ids.defined()) return;
    batch.time_ids = chosen.time_ids.unsqueeze(1).expand({-1, batch.items_per_group(), -1}).contiguous();
  }

  void record(TraceWriter& trace, const StepTensors& tensors, const EncodedBatch& batch) const {
    trace.add(tensors, batch);
    trace.keep("reward", batch.scores);
    trace.keep("micro_groups", at::full({1}, batch.size(), at::kLong));
  }

  OnlineRun run_;
  const losses::Objective& objective_;
  schedulers::NoiseSchedule schedule_;
  TrainStepOptions step_options_;
  RolloutSampler sampler_;
  std::optional<TrainStep> step_;
  std::optional<Samples> samples_;
  std::vector<SampleGroup> groups_;
  std::vector<Portion> portions_;
  std::map<std::string, at::Tensor> round_metrics_;
};

}  // namespace

std::unique_ptr<OnlineMethod> make_group_method(const OnlineRun& run) {
  return std::make_unique<GroupMethod>(run);
}

}  // namespace prefusion::training

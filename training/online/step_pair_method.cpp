#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/rng.h"
#include "training/online/decisions.h"
#include "training/online/online_method.h"
#include "training/online/step_pairs.h"

namespace prefusion::training {
namespace {

// Pairs of steps that leave one common state, of all trajectories of a round in one order.
class StepPairMethod : public OnlineMethod {
 public:
  explicit StepPairMethod(const OnlineRun& run)
      : run_(run),
        sampler_(run.options,
                 {.num_candidates = static_cast<int64_t>(run.params.get("candidates")),
                  .max_timestep = static_cast<int64_t>(run.params.get("max_timestep")),
                  .min_gap = run.params.get("min_gap")},
                 run.policy.denoiser, run.dtype, run.device) {}

  void begin_round(int64_t round, int64_t /*steps_done*/) override { use_pairs(sampler_.sample_round(round)); }
  int64_t num_micro_steps() const override { return static_cast<int64_t>(portions_.size()); }
  int64_t num_samples() const override { return pairs_->final_reward.numel(); }
  const PromptRounds& prompts() const override { return sampler_.prompts(); }
  std::string description() const override {
    const OnlineOptions& online = run_.options.online;
    return concat("rounds of ", online.prompts_per_round, " x ", online.group_size, " trajectories with ",
                  run_.params.get("candidates"), " candidates a step");
  }

  MicroStep micro_step(int64_t index, TraceWriter* trace) override {
    const at::Tensor& portion = portions_[static_cast<size_t>(index)];
    const Decisions decisions = decisions_of(portion);
    const ReplayedDecisions replayed = replay_decisions(run_, pairs_->policy, decisions);
    if (trace != nullptr) trace_decisions(*trace, *pairs_->policy.sampler, decisions, replayed);
    MicroStep micro{.loss = losses::trajectory_loss(run_.objective, replayed.batch, run_.params),
                    .metrics = round_metrics_,
                    .ids = {}};
    for (int64_t i = 0; i < portion.size(0); ++i) {
      const auto item = pairs_->items[portion[i].item<int64_t>()].item<int64_t>();
      micro.ids += concat(micro.ids.empty() ? "" : ", ", "'", pairs_->requests[item].prompt, "'");
    }
    return micro;
  }

  Metadata trace_metadata() const override { return sampling_metadata(sampler_.policy()); }
  TensorMap tensors() const override { return StepPairSampler::tensors(*pairs_); }
  void restore(int64_t round, const TensorMap& tensors, const std::string& where) override {
    use_pairs(sampler_.restore(round, tensors, where));
  }

 private:
  void use_pairs(StepPairs pairs) {
    pairs_ = std::move(pairs);
    plan_portions();
    const int64_t count = pairs_->items.size(0);
    round_metrics_ = {{"reward", pairs_->final_reward.mean().to(at::kDouble)},
                      {"pairs", at::scalar_tensor(count, at::kDouble)}};
    if (count > 0) {
      round_metrics_["reward_gap"] = (pairs_->reward.select(1, 0) - pairs_->reward.select(1, 1)).mean().to(at::kDouble);
    }
  }

  // Every pair once an inner epoch; trajectories, prompts and steps are mixed.
  void plan_portions() {
    portions_.clear();
    const int64_t count = pairs_->items.size(0);
    for (int64_t epoch = 0; epoch < run_.options.online.inner_epochs; ++epoch) {
      const DrawKey key{run_.options.seed, static_cast<uint64_t>(pairs_->round), static_cast<uint64_t>(epoch)};
      const at::Tensor order = at::tensor(random_permutation(count, key, RandomPurpose::kSample), at::kLong);
      for (int64_t begin = 0; begin < count; begin += run_.options.batch_size) {
        portions_.push_back(order.slice(0, begin, std::min(count, begin + run_.options.batch_size)));
      }
    }
  }

  Decisions decisions_of(const at::Tensor& portion) const {
    const at::Device device = pairs_->latents.device();
    const at::Tensor rows = portion.to(device);
    return {.transitions = {.latents = pairs_->latents.index_select(0, rows),
                            .next = pairs_->next.index_select(0, rows),
                            .times = pairs_->times.index_select(0, portion).to(device),
                            .next_times = pairs_->next_times.index_select(0, portion).to(device),
                            .conditioning = pipelines::select_rows(pairs_->conditioning,
                                                                   pairs_->items.index_select(0, portion).to(device))},
            .log_prob_old = pairs_->log_probs.index_select(0, rows).unsqueeze(2),
            .reward = pairs_->reward.index_select(0, portion).to(device),
            .advantage = {},
            .mean_old = {}};
  }

  OnlineRun run_;
  StepPairSampler sampler_;
  std::optional<StepPairs> pairs_;
  std::vector<at::Tensor> portions_;  // rows of the pairs, int64 on the CPU
  std::map<std::string, at::Tensor> round_metrics_;
};

}  // namespace

std::unique_ptr<OnlineMethod> make_step_pair_method(const OnlineRun& run) {
  return std::make_unique<StepPairMethod>(run);
}

}  // namespace prefusion::training

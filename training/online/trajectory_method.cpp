#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/rng.h"
#include "losses/online/advantages.h"
#include "losses/online/ppo_clip.h"
#include "training/online/decisions.h"
#include "training/online/online_method.h"
#include "training/online/rollout.h"

namespace prefusion::training {
namespace {

// Trajectories that are trained on together: positions in the group of one prompt.
struct Group {
  int64_t prompt;
  std::vector<int64_t> members;
};

// One micro-step's share of a round.
struct Portion {
  std::vector<Group> groups;
  std::vector<int64_t> steps;
};

// Policy gradients, pairs and regressions on the decisions of whole trajectories.
class TrajectoryMethod : public OnlineMethod {
 public:
  explicit TrajectoryMethod(const OnlineRun& run)
      : run_(run), sampler_(run.options, run.policy.denoiser, run.dtype, run.device) {}

  void begin_round(int64_t round, int64_t /*steps_done*/) override { use_rollout(sampler_.sample_round(round)); }
  int64_t num_micro_steps() const override { return static_cast<int64_t>(portions_.size()); }
  int64_t num_samples() const override { return rollout_->reward.numel(); }
  const PromptRounds& prompts() const override { return sampler_.prompts(); }
  std::string description() const override {
    const OnlineOptions& online = run_.options.online;
    return concat("rounds of ", online.prompts_per_round, " x ", online.group_size, " trajectories");
  }

  MicroStep micro_step(int64_t index, TraceWriter* trace) override {
    const Portion& portion = portions_[static_cast<size_t>(index)];
    const Decisions decisions = decisions_of(portion);
    const ReplayedDecisions replayed = replay_decisions(run_, rollout_->trajectory.policy, decisions);
    if (trace != nullptr) trace_decisions(*trace, *rollout_->trajectory.policy.sampler, decisions, replayed);
    MicroStep micro{.loss = losses::trajectory_loss(run_.objective, replayed.batch, run_.params),
                    .metrics = round_metrics_,
                    .ids = {}};
    if (run_.params.values.contains("clip")) {
      micro.metrics.merge(losses::ppo_metrics(replayed.batch, run_.params.get("clip")));
    }
    for (const auto& group : portion.groups) {
      micro.ids += concat(micro.ids.empty() ? "" : ", ", "'", rollout_->prompts[group.prompt], "'");
    }
    return micro;
  }

  Metadata trace_metadata() const override { return sampling_metadata(sampler_.policy()); }
  TensorMap tensors() const override { return RolloutSampler::tensors(*rollout_); }
  void restore(int64_t round, const TensorMap& tensors, const std::string& where) override {
    use_rollout(sampler_.restore(round, tensors, where));
  }

 private:
  void use_rollout(Rollout rollout) {
    rollout_ = std::move(rollout);
    advantage_ = losses::standardised_advantage(rollout_->reward, losses::AdvantageScope::kGroup);
    plan_portions();
    round_metrics_ = reward_metrics(rollout_->reward);
  }

  std::vector<Group> groups() const {
    std::vector<Group> groups;
    for (int64_t prompt = 0; prompt < rollout_->num_groups(); ++prompt) {
      Group group{.prompt = prompt, .members = {}};
      if (run_.objective.is_pairwise) {
        const at::Tensor reward = rollout_->reward[prompt];
        group.members = {reward.argmax().item<int64_t>(), reward.argmin().item<int64_t>()};
        if (reward[group.members[0]].item<float>() == reward[group.members[1]].item<float>()) continue;
      } else {
        for (int64_t k = 0; k < rollout_->group_size(); ++k) group.members.push_back(k);
      }
      groups.push_back(std::move(group));
    }
    return groups;
  }

  // Every decision of the round, once an inner epoch, in an order that is the round's own: batches of groups at one
  // step, or at all steps where the objective sums over them.
  void plan_portions() {
    const AlignOptions& options = run_.options;
    portions_.clear();
    const std::vector<Group> all = groups();
    const std::vector<int64_t> decisions = rollout_->decisions();
    check_usage(
        !decisions.empty(), "--online-steps ", options.online.sampling_steps,
        ": no step of it is random, so there is nothing to learn from; use more of them, or another --sde-window");
    for (int64_t epoch = 0; epoch < options.online.inner_epochs; ++epoch) {
      std::vector<Portion> planned;
      for (size_t begin = 0; begin < all.size(); begin += static_cast<size_t>(options.batch_size)) {
        const size_t end = std::min(all.size(), begin + static_cast<size_t>(options.batch_size));
        const std::vector<Group> batch(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                       all.begin() + static_cast<std::ptrdiff_t>(end));
        if (run_.objective.sums_over_steps) {
          planned.push_back({batch, decisions});
        } else {
          for (const int64_t step : decisions) planned.push_back({batch, {step}});
        }
      }
      const DrawKey key{options.seed, static_cast<uint64_t>(rollout_->round), static_cast<uint64_t>(epoch)};
      for (const int64_t i : random_permutation(static_cast<int64_t>(planned.size()), key, RandomPurpose::kSample)) {
        portions_.push_back(planned[i]);
      }
    }
  }

  Decisions decisions_of(const Portion& portion) const {
    std::vector<pipelines::TransitionIndex> indices;
    std::vector<int64_t> items;  // of each (group, member)
    for (const Group& group : portion.groups) {
      for (const int64_t member : group.members) items.push_back(group.prompt * rollout_->group_size() + member);
    }
    for (const int64_t item : items) {
      for (const int64_t step : portion.steps) indices.push_back({item, step});
    }
    const auto num_groups = static_cast<int64_t>(portion.groups.size());
    const auto num_members = static_cast<int64_t>(portion.groups.front().members.size());
    const auto num_steps = static_cast<int64_t>(portion.steps.size());

    const pipelines::Trajectory& trajectory = rollout_->trajectory;
    const at::Device device = trajectory.log_probs.device();
    const at::Tensor rows = at::tensor(items, at::kLong);
    const at::Tensor steps = at::tensor(portion.steps, at::kLong).to(device);
    const auto of_members = [&](const at::Tensor& values) {
      return values.flatten().index_select(0, rows).view({num_groups, num_members}).to(device);
    };
    return {.transitions = pipelines::select_transitions(trajectory, indices),
            .log_prob_old = trajectory.log_probs.index_select(0, rows.to(device))
                                .index_select(1, steps)
                                .view({num_groups, num_members, num_steps}),
            .reward = of_members(rollout_->reward),
            .advantage = of_members(advantage_),
            .mean_old = means_of(indices)};
  }

  // Of the steps as they were sampled, [M, C, h, w]; undefined where they are not kept.
  at::Tensor means_of(const std::vector<pipelines::TransitionIndex>& indices) const {
    const at::Tensor& means = rollout_->trajectory.means;
    if (!means.defined()) return {};
    std::vector<int64_t> rows;
    for (const auto& [item, step] : indices) rows.push_back(item * means.size(1) + step);
    return means.flatten(0, 1).index_select(0, at::tensor(rows, at::kLong).to(means.device()));
  }

  OnlineRun run_;
  RolloutSampler sampler_;
  std::optional<Rollout> rollout_;
  at::Tensor advantage_;  // [P, k]
  std::vector<Portion> portions_;
  std::map<std::string, at::Tensor> round_metrics_;
};

}  // namespace

std::unique_ptr<OnlineMethod> make_trajectory_method(const OnlineRun& run) {
  return std::make_unique<TrajectoryMethod>(run);
}

}  // namespace prefusion::training

#include "training/online/policy_gradient_steps.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "core/error.h"
#include "core/logging.h"
#include "core/rng.h"
#include "losses/online/advantages.h"
#include "losses/online/ppo_clip.h"
#include "losses/registry.h"
#include "training/make_reference.h"
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

class PolicyGradientSteps : public StepSource {
 public:
  PolicyGradientSteps(const AlignOptions& options, const Policy& policy, const losses::OnlineObjective& objective,
                      at::ScalarType dtype, at::Device device)
      : options_(options),
        policy_(policy),
        objective_(objective),
        params_(losses::resolve_params(objective.info, options.objective_args, options.beta, options.kappa)),
        reference_spec_(options.reference_spec(objective.info)),
        reference_(make_reference(reference_spec_, options, policy, dtype, device)),
        sampler_(options, policy.denoiser, dtype, device) {}

  int64_t num_steps() const override { return options_.steps; }
  double groups_per_step() const override { return static_cast<double>(options_.batch_size * options_.accumulate); }
  double epochs() const override {
    return static_cast<double>((round_ + 1) * options_.online.prompts_per_round) /
           static_cast<double>(sampler_.num_prompts());
  }
  std::string description() const override {
    return concat("on the policy's own samples: rounds of ", options_.online.prompts_per_round, " x ",
                  options_.online.group_size, " trajectories for ", sampler_.num_prompts(), " prompts");
  }

  MicroStep next(int64_t /*step*/) override {
    if (next_portion_ >= portions_.size()) begin_round(round_ + 1);
    const Portion& portion = portions_[next_portion_++];
    const losses::TrajectoryBatch batch = replay(portion);
    MicroStep micro{.loss = losses::trajectory_loss(objective_, batch, params_), .metrics = round_metrics_, .ids = {}};
    if (params_.values.contains("clip") && batch.log_prob_old.defined()) {
      micro.metrics.merge(losses::ppo_metrics(batch, params_.get("clip")));
    }
    for (const auto& group : portion.groups) {
      micro.ids += concat(micro.ids.empty() ? "" : ", ", "'", rollout_->prompts[group.prompt], "'");
    }
    return micro;
  }

  void follow(int64_t step, const std::vector<NamedTensor>& master_weights) override {
    if (reference_) reference_->follow(step, master_weights);
  }

  Json fingerprint() const override {
    const OnlineOptions& online = options_.online;
    return {{"objective", options_.objective},     {"reference", options_.reference},
            {"prompts", sampler_.num_prompts()},   {"prompts_per_round", online.prompts_per_round},
            {"group_size", online.group_size},     {"sampling_steps", online.sampling_steps},
            {"inner_epochs", online.inner_epochs}, {"eta", online.eta},
            {"sampling_guidance", online.guidance}};
  }

  Json state() const override { return {{"round", round_}, {"portion", next_portion_}}; }

  TensorMap tensors() const override {
    TensorMap tensors = reference_spec_.moves() ? reference_->state() : TensorMap{};
    if (round_ >= 0) tensors.merge(RolloutSampler::tensors(*rollout_));
    return tensors;
  }

  void restore(const Json& state, const TensorMap& tensors, const std::string& where) override {
    const auto round = state.at("round").get<int64_t>();
    if (round < 0) return;
    TensorMap samples, reference;
    for (const auto& [name, tensor] : tensors) (name.starts_with("reference.") ? reference : samples)[name] = tensor;
    if (reference_spec_.moves()) reference_->load_state(reference, where);
    use_rollout(sampler_.restore(round, samples, where));
    next_portion_ = state.at("portion").get<size_t>();
  }

  void dry_run(AdamW& optimizer) override {
    int64_t trainable = 0;
    for (const auto& [name, parameter] : optimizer.parameters()) trainable += parameter.numel();
    begin_round(0);
    std::printf("objective            %s, %s\n", options_.objective.c_str(),
                losses::describe_params(objective_.info, params_).c_str());
    std::printf("trainable parameters %lld\n", static_cast<long long>(trainable));
    std::printf("a round              %lld trajectories, %zu micro-steps, mean reward %.4f\n",
                static_cast<long long>(rollout_->reward.numel()), portions_.size(),
                rollout_->reward.mean().item<double>());
  }

 private:
  void begin_round(int64_t round) {
    // A pairwise objective has nothing to learn from prompts whose samples are all worth the same.
    constexpr int64_t kMostFruitlessRounds = 20;
    for (int64_t tries = 0; tries < kMostFruitlessRounds; ++tries) {
      use_rollout(sampler_.sample(round + tries));
      if (!portions_.empty()) return;
      log_warn("round ", round + tries, ": no prompt has two samples of different reward");
    }
    fail_run("--reward ", options_.online.reward, ": ", kMostFruitlessRounds,
             " rounds in which no prompt had two samples of different reward; use other prompts or a larger "
             "--group-size");
  }

  void use_rollout(Rollout rollout) {
    rollout_ = std::move(rollout);
    round_ = rollout_->round;
    advantage_ = losses::standardised_advantage(rollout_->reward, losses::AdvantageScope::kGroup);
    plan_portions();
    next_portion_ = 0;
    round_metrics_ = {{"reward", rollout_->reward.mean().to(at::kDouble)},
                      {"reward_std", rollout_->reward.std(1, /*unbiased=*/false).mean().to(at::kDouble)}};
  }

  std::vector<Group> groups() const {
    std::vector<Group> groups;
    for (int64_t prompt = 0; prompt < rollout_->num_groups(); ++prompt) {
      Group group{.prompt = prompt, .members = {}};
      if (objective_.is_pairwise) {
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
    portions_.clear();
    const std::vector<Group> all = groups();
    const std::vector<int64_t> decisions = rollout_->decisions();
    check_usage(!decisions.empty(), "--eta ", options_.online.eta,
                ": no step is random, so there is nothing to learn from; use an --eta above 0");
    for (int64_t epoch = 0; epoch < options_.online.inner_epochs; ++epoch) {
      std::vector<Portion> planned;
      for (size_t begin = 0; begin < all.size(); begin += static_cast<size_t>(options_.batch_size)) {
        const size_t end = std::min(all.size(), begin + static_cast<size_t>(options_.batch_size));
        const std::vector<Group> batch(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                       all.begin() + static_cast<std::ptrdiff_t>(end));
        if (objective_.sums_over_steps) {
          planned.push_back({batch, decisions});
        } else {
          for (const int64_t step : decisions) planned.push_back({batch, {step}});
        }
      }
      const DrawKey key{options_.seed, static_cast<uint64_t>(round_), static_cast<uint64_t>(epoch)};
      for (const int64_t i : random_permutation(static_cast<int64_t>(planned.size()), key, RandomPurpose::kSample)) {
        portions_.push_back(planned[i]);
      }
    }
  }

  // The portion as the objective sees it: [B, k, S].
  losses::TrajectoryBatch replay(const Portion& portion) {
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
    const auto grouped = [&](const at::Tensor& values) { return values.view({num_groups, num_members, num_steps}); };

    const pipelines::Transitions transitions = pipelines::select_transitions(rollout_->trajectory, indices);
    const pipelines::DdimPolicy& sampling = rollout_->trajectory.policy;
    const auto now = pipelines::replay(*policy_.denoiser, sampling, transitions);
    losses::TrajectoryBatch batch;
    batch.log_prob = grouped(now.log_probs);
    batch.num_elements = static_cast<double>(transitions.latents[0].numel());
    if (reference_) {
      pipelines::ReplayedTransitions then;
      reference_->with_network(
          [&](unet::Denoiser& network) { then = pipelines::replay(network, sampling, transitions); });
      batch.log_prob_ref = grouped(then.log_probs);
      batch.kl = grouped(schedulers::mean_kl(now.step.mean, then.step.mean, now.step.std));
    }
    const at::Device device = now.log_probs.device();
    const at::Tensor rows = at::tensor(items, at::kLong);
    const at::Tensor steps = at::tensor(portion.steps, at::kLong).to(device);
    batch.log_prob_old =
        grouped(rollout_->trajectory.log_probs.index_select(0, rows.to(device)).index_select(1, steps));
    const auto of_members = [&](const at::Tensor& values) {
      return values.flatten().index_select(0, rows).view({num_groups, num_members}).to(device);
    };
    batch.reward = of_members(rollout_->reward);
    batch.advantage = of_members(advantage_);
    batch.step_std = now.step.std.detach().view({num_groups * num_members, num_steps})[0];
    batch.step_size = at::ones_like(batch.step_std);  // the KL of DDIM steps counts as it is
    return batch;
  }

  const AlignOptions& options_;
  const Policy& policy_;
  const losses::OnlineObjective& objective_;
  losses::ObjectiveParams params_;
  ReferenceSpec reference_spec_;
  std::unique_ptr<ReferencePolicy> reference_;
  RolloutSampler sampler_;

  int64_t round_ = -1;
  std::optional<Rollout> rollout_;
  at::Tensor advantage_;  // [P, k]
  std::vector<Portion> portions_;
  size_t next_portion_ = 0;
  std::map<std::string, at::Tensor> round_metrics_;
};

}  // namespace

std::unique_ptr<StepSource> make_policy_gradient_steps(const AlignOptions& options, const Policy& policy,
                                                       const losses::OnlineObjective& objective, at::ScalarType dtype,
                                                       at::Device device) {
  return std::make_unique<PolicyGradientSteps>(options, policy, objective, dtype, device);
}

}  // namespace prefusion::training

#include "training/online/online_steps.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/logging.h"
#include "losses/registry.h"
#include "schedulers/noise_schedule.h"
#include "training/make_reference.h"
#include "training/online/online_dry_run.h"
#include "training/online/online_method.h"
#include "training/online/online_options.h"
#include "training/trace.h"

namespace prefusion::training {
namespace {

std::unique_ptr<OnlineMethod> make_method(const OnlineRun& run) {
  const losses::OnlineObjective& objective = run.objective;
  const schedulers::SchedulerConfig schedule = schedulers::read_scheduler_config(run.options.model);
  const unet::DenoiserInfo& network = run.policy.denoiser->info();
  check_input(schedule.use_flow_sigmas || !network.is_flow, schedule.where, ": ", network.class_name,
              " is a flow model, expected a scheduler of flow matching, found ", schedule.class_name);
  check_sampling_noise(run.options, objective, schedule.use_flow_sigmas);
  if (std::holds_alternative<losses::ForwardLoss>(objective.group_loss)) return make_forward_method(run);
  if (std::holds_alternative<losses::RewardLoss>(objective.group_loss)) return make_reward_gradient_method(run);
  if (std::holds_alternative<losses::GroupObjective>(objective.group_loss)) return make_group_method(run);
  return objective.compares_candidates ? make_step_pair_method(run) : make_trajectory_method(run);
}

class OnlineSteps : public StepSource {
 public:
  OnlineSteps(const AlignOptions& options, const Policy& policy, const losses::OnlineObjective& objective,
              at::ScalarType dtype, at::Device device)
      : options_(options),
        policy_(policy),
        objective_(objective),
        params_(losses::resolve_params(objective.info, options.objective_args, options.beta, options.kappa)),
        reference_spec_(options.reference_spec(losses::with_needs_of(options.loss, objective.info))),
        reference_(make_reference(reference_spec_, options, policy, dtype, device)),
        device_(device),
        method_(make_method({options, policy, objective, params_, reference_.get(), dtype, device})) {}

  int64_t num_steps() const override { return options_.steps; }
  double groups_per_step() const override { return static_cast<double>(options_.batch_size * options_.accumulate); }
  double epochs() const override {
    return static_cast<double>((round_ + 1) * prompts_per_round()) / static_cast<double>(method_->prompts().size());
  }
  std::string description() const override {
    return concat("on the policy's own samples: ", method_->description(), " for ", method_->prompts().size(),
                  " prompts");
  }

  void prepare_start() override {
    if (options_.trace.empty()) return;
    trace_ = std::make_unique<TraceWriter>(options_.trace, options_.trace_steps, trace_metadata(), options_.seed);
  }

  MicroStep next(int64_t step, double share) override {
    if (next_ >= num_micro_steps()) begin_round(round_ + 1, step - 1);
    MicroStep micro = method_->micro_step(next_++, trace_ && trace_->wants(step) ? trace_.get() : nullptr);
    differentiate(micro.loss, share);
    micro.loss = micro.loss.detach();
    return micro;
  }

  void on_gradients(int64_t step, const at::Tensor& loss, const at::Tensor& grad_norm) override {
    if (trace_ && trace_->wants(step)) trace_->write(step, loss, grad_norm);
  }

  void follow(int64_t step, const std::vector<NamedTensor>& master_weights) override {
    if (reference_) reference_->follow(step, master_weights);
  }

  Json fingerprint() const override {
    const OnlineOptions& online = options_.online;
    Json same = {{"objective", options_.objective},
                 {"reference", options_.reference},
                 {"reward", online.reward},
                 {"prompts", method_->prompts().size()},
                 {"prompts_per_round", prompts_per_round()},
                 {"group_size", online.group_size},
                 {"sampling_steps", online.sampling_steps},
                 {"inner_epochs", online.inner_epochs},
                 {"eta", online.eta},
                 {"sampling_guidance", online.guidance},
                 {"window", online.window},
                 {"resolution", options_.resolution}};
    same.update(method_->fingerprint());
    return same;
  }

  Json state() const override { return {{"round", round_}, {"portion", next_}}; }

  TensorMap tensors() const override {
    TensorMap tensors = reference_spec_.moves() ? reference_->state() : TensorMap{};
    if (round_ >= 0) tensors.merge(method_->tensors());
    return tensors;
  }

  void restore(const Json& state, const TensorMap& tensors, const std::string& where) override {
    TensorMap samples, reference;
    for (const auto& [name, tensor] : tensors) (name.starts_with("reference.") ? reference : samples)[name] = tensor;
    if (reference_spec_.moves()) reference_->load_state(reference, where);
    round_ = state.at("round").get<int64_t>();
    next_ = state.at("portion").get<int64_t>();
    if (round_ >= 0) method_->restore(round_, samples, where);
  }

  void dry_run(Optimizer& optimizer) override {
    online_dry_run(*method_, optimizer, policy_, options_,
                   concat(options_.objective, ", ", losses::describe_params(objective_.info, params_)), reference_spec_,
                   device_);
  }

 private:
  int64_t prompts_per_round() const { return method_->prompts().per_round(); }
  int64_t num_micro_steps() const { return round_ < 0 ? 0 : method_->num_micro_steps(); }

  void begin_round(int64_t round, int64_t steps_done) {
    // A pairwise objective has nothing to learn from prompts whose samples are all worth the same.
    constexpr int64_t kMostFruitlessRounds = 20;
    next_ = 0;
    for (int64_t tries = 0; tries < kMostFruitlessRounds; ++tries) {
      round_ = round + tries;
      method_->begin_round(round_, steps_done);
      if (num_micro_steps() > 0) return;
      log_warn("round ", round_, ": no prompt has two samples of different reward");
    }
    fail_run("--reward ", options_.online.reward, ": ", kMostFruitlessRounds,
             " rounds in which no prompt had two samples of different reward; use other prompts or a larger "
             "--group-size");
  }

  Metadata trace_metadata() const {
    Metadata metadata = losses::params_metadata(params_);
    metadata["objective"] = options_.objective;
    metadata["prediction_type"] = prediction_type_name(
        schedulers::NoiseSchedule(schedulers::read_scheduler_config(options_.model)).prediction_type());
    metadata["learning_rate"] = concat(options_.lr);
    metadata["max_grad_norm"] = concat(options_.max_grad_norm);
    metadata["weight_decay"] = concat(options_.weight_decay);
    metadata["seed"] = concat(options_.seed);
    metadata["reward"] = options_.online.reward;
    metadata["sampling_steps"] = concat(options_.online.sampling_steps);
    metadata["guidance"] = concat(options_.online.guidance);
    if (policy_.denoiser->info().uses_guidance) metadata["distilled_guidance"] = metadata["guidance"];
    metadata.merge(method_->trace_metadata());
    return metadata;
  }

  const AlignOptions& options_;
  const Policy& policy_;
  const losses::OnlineObjective& objective_;
  losses::ObjectiveParams params_;
  ReferenceSpec reference_spec_;
  std::unique_ptr<ReferencePolicy> reference_;
  at::Device device_;
  std::unique_ptr<OnlineMethod> method_;
  std::unique_ptr<TraceWriter> trace_;
  int64_t round_ = -1;
  int64_t next_ = 0;  // micro-step of the round
};

}  // namespace

std::unique_ptr<StepSource> make_online_steps(const AlignOptions& options, const Policy& policy,
                                              const losses::OnlineObjective& objective, at::ScalarType dtype,
                                              at::Device device) {
  return std::make_unique<OnlineSteps>(options, policy, objective, dtype, device);
}

}  // namespace prefusion::training

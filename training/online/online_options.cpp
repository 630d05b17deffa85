#include "training/online/online_options.h"

#include <algorithm>
#include <functional>

#include "core/error.h"
#include "losses/registry.h"
#include "training/online/differentiable_reward.h"
#include "training/picture_judge.h"

namespace prefusion::training {
namespace {

constexpr const char* kNoiseLevel = "noise_level";

losses::ObjectiveParams params_of(const AlignOptions& options, const losses::OnlineObjective& objective) {
  return losses::resolve_params(objective.info, options.objective_args, options.beta, options.kappa);
}

class ProblemList {
 public:
  explicit ProblemList(const std::string& objective) : objective_(objective) {}

  void check(bool condition, const std::string& problem) {
    if (!condition) problems_.push_back(problem);
  }
  void refuse(bool is_given, const char* flag, const char* reason) {
    check(!is_given, concat("--objective ", objective_, " ", reason, ": leave ", flag, " out"));
  }
  void attempt(const std::function<void()>& function) {
    try {
      function();
    } catch (const Error& error) {
      problems_.push_back(error.what());
    }
  }
  std::vector<std::string> take() { return std::move(problems_); }

 private:
  const std::string& objective_;
  std::vector<std::string> problems_;
};

}  // namespace

const losses::OnlineObjective* online_objective_of(const AlignOptions& options) {
  if (const auto* online = losses::find_online_objective(options.objective)) return online;
  return options.online.prompts.empty() ? nullptr : losses::find_objective_on_samples(options.objective);
}

std::vector<std::string> online_problems(const AlignOptions& options, const losses::OnlineObjective& objective) {
  const OnlineOptions& online = options.online;
  const OnlineOptions defaults;
  const bool uses_decisions = std::holds_alternative<losses::TrajectoryLoss>(objective.group_loss);
  const bool uses_gradient = std::holds_alternative<losses::RewardLoss>(objective.group_loss);
  ProblemList problems(objective.info.name);
  if (uses_gradient) {
    const char* reason = "makes every picture once and without noise on the way";
    problems.refuse(online.prompts_per_round != defaults.prompts_per_round, "--prompts-per-round", reason);
    problems.refuse(online.group_size != defaults.group_size, "--group-size", reason);
    problems.refuse(online.inner_epochs != defaults.inner_epochs, "--inner-epochs", reason);
    problems.refuse(online.eta != defaults.eta, "--eta", reason);
    problems.attempt([&] { make_differentiable_reward(online.reward); });
  } else {
    problems.check(online.group_size > (objective.compares_candidates ? 0 : 1),
                   objective.compares_candidates ? "--group-size must be positive"
                                                 : "--group-size must be 2 or more: samples of a prompt are compared");
    problems.check((uses_decisions ? online.eta > 0 : online.eta >= 0) && online.eta <= 1,
                   uses_decisions ? "--eta must lie above 0, at most 1" : "--eta must lie in [0, 1]");
    problems.attempt([&] { check_judge({.rewards = {online.reward}}); });
  }
  if (!uses_decisions) {
    problems.refuse(online.window != defaults.window, "--sde-window", "does not learn from random steps");
  }
  if (!losses::with_needs_of(options.loss, objective.info).needs_reference) {
    problems.refuse(!options.reference.empty() && options.reference != "none", "--reference", "compares with none");
    problems.refuse(!options.reference_model.empty(), "--reference-model", "compares with none");
  }
  return problems.take();
}

void check_sampling_noise(const AlignOptions& options, const losses::OnlineObjective& objective, bool is_flow) {
  const std::string& name = objective.info.name;
  check_usage(!is_flow || options.online.eta == OnlineOptions{}.eta, "--objective ", name,
              " on this flow model steps with an SDE, whose noise is --objective-args noise_level=X: leave --eta out");
  check_usage(is_flow || !objective.needs_flow, "--objective ", name,
              " is about the steps of a flow model's SDE, and this model is none: use ddpo or flow-grpo");
  const auto parameter = std::ranges::find(objective.info.parameters, kNoiseLevel, &losses::ObjectiveParameter::name);
  const bool is_left = parameter == objective.info.parameters.end() ||
                       params_of(options, objective).get(kNoiseLevel) == parameter->default_value;
  check_usage(is_flow || is_left, "--objective ", name,
              " on this model steps with DDIM, whose noise is --eta: leave noise_level out of --objective-args");
}

double sampling_noise(const AlignOptions& options, const losses::OnlineObjective& objective, bool is_flow) {
  if (!is_flow) return options.online.eta;
  const losses::ObjectiveParams params = params_of(options, objective);
  return params.values.contains(kNoiseLevel) ? params.get(kNoiseLevel) : 0.0;
}

}  // namespace prefusion::training

#include "losses/loss_options.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "losses/objective.h"

namespace prefusion::losses {
namespace {

constexpr double kNoBound = 1e9;

void check_range(const char* flag, double value, double min, double max) {
  check_usage(value >= min && value <= max, flag, " ", value, ": expected ", min, " to ", max);
}

void check_ranges(const LossOptions& options) {
  check_range("--loser-weight", options.loser_weight, 0, 1);
  check_range("--safe-loser", options.safe_loser.value_or(0), 0, 1);
  check_range("--sft-weight", options.sft_weight, 0, kNoBound);
  check_range("--anchor-weight", options.anchor_weight, 0, kNoBound);
  check_range("--label-smoothing", options.label_smoothing, 0, 0.5);
  check_range("--margin-drop", options.margin_drop, 0, 1);
}

bool has_parameter(const ObjectiveInfo& info, const char* name) {
  return std::ranges::any_of(info.parameters, [name](const auto& parameter) { return parameter.name == name; });
}

}  // namespace

void check_loss_options(const Objective& objective, const LossOptions& options) {
  check_ranges(options);
  const ObjectiveInfo& info = objective.info;
  const auto refuse = [&info](bool is_refused, const char* flag, const auto&... why) {
    check_usage(!is_refused, flag, ": objective ", info.name, " ", why...);
  };
  const bool is_pair = info.data == DataKind::kPair;
  const auto trains_on = concat("trains on ", data_kind_name(info.data), " items");
  const bool weighs_losers = options.loser_weight != 1;
  const bool has_safe_loser = options.safe_loser.has_value();
  refuse(weighs_losers && !is_pair && info.data != DataKind::kList, "--loser-weight", trains_on,
         ", which have no loser");
  refuse(has_safe_loser && !is_pair, "--safe-loser", trains_on, ", expected pairs");
  refuse((weighs_losers || has_safe_loser) && info.needs_residual_dot,
         has_safe_loser ? "--safe-loser" : "--loser-weight", "scales its rejected items itself");
  check_usage(!weighs_losers || !has_safe_loser,
              "--safe-loser and --loser-weight scale the same items; give one of them");
  refuse(options.sft_weight > 0 && info.data == DataKind::kSingle, "--sft-weight", "is the denoising loss already");
  refuse(options.label_smoothing > 0 && !is_pair, "--label-smoothing", trains_on, ", expected pairs");
  refuse(options.label_smoothing > 0 && has_parameter(info, "label_smoothing"), "--label-smoothing",
         "has its own; give it as --objective-args label_smoothing=", options.label_smoothing);
  refuse(options.soft_labels && !is_pair, "--soft-labels", trains_on, ", expected pairs");
  refuse(options.soft_labels && objective.labels, "--soft-labels", "makes its labels from the scores");
  refuse(options.soft_labels && info.compares_groups, "--soft-labels", "mixes the pairs of a batch");
  refuse(options.margin_drop > 0 && info.data == DataKind::kSingle, "--margin-drop", "has no preference term");
  refuse(options.swap_empty_prompts && !is_pair, "--swap-empty-prompts", trains_on, ", expected pairs");
}

ObjectiveInfo with_needs_of(const LossOptions& options, const ObjectiveInfo& info) {
  ObjectiveInfo needs = info;
  if (options.anchor_weight > 0) needs.needs_reference = needs.needs_drift = true;
  if (options.safe_loser) needs.needs_residual_dot = true;
  return needs;
}

}  // namespace prefusion::losses

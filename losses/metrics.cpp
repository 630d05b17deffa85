#include "losses/metrics.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {
namespace {

// [B, k], detached.
at::Tensor implicit_reward(const ObjectiveInfo& info, const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor error = errors.error.detach();
  const at::Tensor reward = info.needs_reference ? errors.error_ref.detach() - error : -error;
  return info.has_kappa() ? reward * params.kappa : reward;
}

// Mean sign of the difference over the pairs (better, worse) marked with 1 in `pairs`. Both [..., k, k].
at::Tensor kendall_tau(const at::Tensor& differences, const at::Tensor& pairs) {
  return (differences.sign() * pairs).sum() / pairs.sum();
}

// Share of those pairs with a positive difference, ties one half.
at::Tensor pair_accuracy(const at::Tensor& differences, const at::Tensor& pairs) {
  return (kendall_tau(differences, pairs) + 1) * 0.5;
}

// Which item of each group is chosen and rejected: [B, 1] positions.
struct Extremes {
  at::Tensor chosen, rejected;
};

Extremes extremes(const GroupErrors& errors, bool is_list) {
  const int64_t num_groups = errors.error.size(0);
  const auto options = errors.error.options().dtype(at::kLong);
  if (!is_list) {
    return {.chosen = at::zeros({num_groups, 1}, options), .rejected = at::ones({num_groups, 1}, options)};
  }
  const at::Tensor order = order_best_first(preference(errors));
  return {.chosen = order.slice(1, 0, 1), .rejected = order.slice(1, order.size(1) - 1)};
}

// Mean sigmoid(-u) over the ordered pairs: how hard a logistic loss would still push.
void add_gradient_factor(const GroupErrors& errors, const at::Tensor& reward, bool is_list,
                         std::map<std::string, at::Tensor>& metrics) {
  if (!is_list) {
    metrics["gradient_factor"] = (reward.select(1, 1) - reward.select(1, 0)).sigmoid().mean();
    return;
  }
  const at::Tensor pairs = preferred_pairs(preference(errors));
  metrics["gradient_factor"] = ((-pair_differences(reward)).sigmoid() * pairs).sum() / pairs.sum();
}

// `is_list`: preference says which items are better, not the position.
std::map<std::string, at::Tensor> grouped_metrics(const GroupErrors& errors, const at::Tensor& reward, bool is_list) {
  std::map<std::string, at::Tensor> metrics;
  const Extremes items = extremes(errors, is_list);
  const auto mean_at = [](const at::Tensor& values, const at::Tensor& item) { return values.gather(1, item).mean(); };
  metrics["margin"] = mean_at(reward, items.chosen) - mean_at(reward, items.rejected);
  if (!is_list) {
    metrics["accuracy"] = ((reward.select(1, 0) - reward.select(1, 1)).sign() + 1).mean() * 0.5;
  } else {
    metrics["accuracy"] = pair_accuracy(pair_differences(reward), preferred_pairs(preference(errors)));
  }
  metrics["error_chosen"] = mean_at(errors.error.detach(), items.chosen);
  metrics["error_rejected"] = mean_at(errors.error.detach(), items.rejected);
  if (errors.error_ref.defined()) {
    metrics["error_chosen_ref"] = mean_at(errors.error_ref.detach(), items.chosen);
    metrics["error_rejected_ref"] = mean_at(errors.error_ref.detach(), items.rejected);
  }
  return metrics;
}

// How well policy and reference order a list by themselves, whatever one is relative to the other.
void add_ranking_metrics(const GroupErrors& errors, std::map<std::string, at::Tensor>& metrics) {
  const at::Tensor pairs = preferred_pairs(preference(errors));
  metrics["ranking_accuracy"] = kendall_tau(pair_differences(-errors.error.detach()), pairs);
  if (errors.error_ref.defined()) {
    metrics["ranking_accuracy_ref"] = kendall_tau(pair_differences(-errors.error_ref.detach()), pairs);
  }
}

// k = 1. Batches with only one kind of label leave the metrics that need the other NaN (null in metrics.jsonl).
std::map<std::string, at::Tensor> unpaired_metrics(const GroupErrors& errors, const at::Tensor& reward) {
  std::map<std::string, at::Tensor> metrics;
  const at::Tensor flat = reward.flatten();
  const at::Tensor is_chosen =
      errors.labels.defined() ? errors.labels.flatten() > 0.5 : at::ones_like(flat, flat.options().dtype(at::kBool));
  const auto mean_of = [](const at::Tensor& values, const at::Tensor& mask) {
    const at::Tensor selected = mask.to(values.dtype());
    return (values.detach().flatten() * selected).sum() / selected.sum();
  };
  metrics["error_chosen"] = mean_of(errors.error, is_chosen);
  if (errors.error_ref.defined()) metrics["error_chosen_ref"] = mean_of(errors.error_ref, is_chosen);
  if (!errors.labels.defined()) return metrics;
  const at::Tensor is_rejected = is_chosen.logical_not();
  metrics["error_rejected"] = mean_of(errors.error, is_rejected);
  if (errors.error_ref.defined()) metrics["error_rejected_ref"] = mean_of(errors.error_ref, is_rejected);
  metrics["margin"] = mean_of(flat, is_chosen) - mean_of(flat, is_rejected);
  metrics["accuracy"] = pair_accuracy(flat.unsqueeze(1) - flat.unsqueeze(0),
                                      is_chosen.unsqueeze(1).logical_and(is_rejected.unsqueeze(0)).to(flat.dtype()));
  return metrics;
}

}  // namespace

std::map<std::string, at::Tensor> common_metrics(const ObjectiveInfo& info, const GroupErrors& errors,
                                                 const ObjectiveParams& params) {
  const at::NoGradGuard no_grad;
  const at::Tensor reward = implicit_reward(info, errors, params);
  if (errors.error.size(1) == 1) return unpaired_metrics(errors, reward);
  const bool is_list = errors.error.size(1) > 2 || info.data == DataKind::kList;
  std::map<std::string, at::Tensor> metrics = grouped_metrics(errors, reward, is_list);
  if (is_list) add_ranking_metrics(errors, metrics);
  if (info.has_kappa()) add_gradient_factor(errors, reward, is_list, metrics);
  return metrics;
}

}  // namespace prefusion::losses

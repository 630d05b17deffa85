#include "losses/optional_terms.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "losses/group_math.h"
#include "losses/safe_loser.h"

namespace prefusion::losses {
namespace {

// The errors with `map` applied to everything that is one number an item.
template <typename Map>
GroupErrors mapped(GroupErrors errors, const Map& map) {
  for (at::Tensor* tensor : {&errors.error, &errors.error_ref, &errors.drift, &errors.residual_square}) {
    if (tensor->defined()) *tensor = map(*tensor);
  }
  return errors;
}

// Exchanging roles moves the errors; labels and scores say which place is the better one and stay.
GroupErrors exchanged(const GroupErrors& errors) {
  return mapped(errors, [](const at::Tensor& x) { return x.flip(1); });
}

GroupErrors exchanged_where_marked(const GroupErrors& errors) {
  if (!errors.swap.defined()) return errors;
  const at::Tensor mark = errors.swap.to(at::kBool).unsqueeze(1);
  return mapped(errors, [&mark](const at::Tensor& x) { return at::where(mark, x.flip(1), x); });
}

// All that is quadratic in the residuals, by the group's factor.
GroupErrors scaled(const GroupErrors& errors) {
  if (!errors.error_scale.defined()) return errors;
  const at::Tensor factor = errors.error_scale.to(errors.error.dtype());
  GroupErrors result = mapped(errors, [&factor](const at::Tensor& x) { return x * factor.unsqueeze(1); });
  if (errors.residual_dot.defined()) result.residual_dot = errors.residual_dot * factor;
  return result;
}

// Where the chosen item of each group of two or more is. [B, k] bool
at::Tensor chosen_items(const Objective& objective, const GroupErrors& errors) {
  const bool is_in_order = objective.info.data == DataKind::kPair && !objective.labels;
  const at::Tensor best = is_in_order ? at::zeros({errors.error.size(0), 1}, errors.error.options().dtype(at::kLong))
                                      : order_best_first(preference(errors)).slice(1, 0, 1);
  return at::zeros_like(errors.error, errors.error.options().dtype(at::kBool)).scatter(1, best, true);
}

// [B]
at::Tensor chosen_error(const Objective& objective, const GroupErrors& errors) {
  if (objective.info.data == DataKind::kUnpaired) {
    return (desirability(errors, objective.info.name.c_str()) * errors.error).mean(1);
  }
  return (chosen_items(objective, errors).to(errors.error.dtype()) * errors.error).sum(1);
}

GroupErrors with_lighter_losers(const Objective& objective, const GroupErrors& errors, const LossOptions& options) {
  if (options.loser_weight == 1 && !options.safe_loser) return errors;
  const at::Tensor& error = errors.error;
  GroupErrors result = errors;
  at::Tensor of_losers;
  if (options.safe_loser) {
    const at::Tensor is_chosen = chosen_items(objective, errors).to(error.dtype());
    const at::Tensor factor =
        safe_loser_factor((is_chosen * residual_squares(errors)).sum(1), errors.residual_dot, *options.safe_loser);
    of_losers = scale_gradient(error, factor);
  } else {
    const at::Tensor start = objective.info.needs_reference ? errors.error_ref.detach() : at::zeros_like(error);
    of_losers = start + options.loser_weight * (error - start);
  }
  result.error = at::where(chosen_items(objective, errors), error, of_losers);
  return result;
}

// The probability that item 0 is the better one under both label options, [B] or []; undefined without either.
at::Tensor first_is_better(const GroupErrors& errors, const LossOptions& options) {
  if (!options.soft_labels && options.label_smoothing == 0) return {};
  const auto type = errors.error.options();
  const at::Tensor p = options.soft_labels ? errors.labels.select(1, 0).detach().to(type) : at::ones({}, type);
  return (1 - options.label_smoothing) * p + options.label_smoothing * (1 - p);
}

at::Tensor preference_term(const Objective& objective, GroupErrors errors, const ObjectiveParams& params,
                           const LossOptions& options) {
  const auto term = [&](const GroupErrors& roles) {
    return objective.group_loss(with_lighter_losers(objective, roles, options), params);
  };
  check_run(!options.soft_labels || errors.labels.defined(), objective.info.name,
            ": soft labels need labels, found none");
  const at::Tensor p = first_is_better(errors, options);
  if (!p.defined()) return term(errors);
  // The probability is in p; the objective itself sees a pair of hard labels.
  if (options.soft_labels) errors.labels = (1 - at::arange(2, errors.labels.options())).expand_as(errors.labels);
  return p * term(errors) + (1 - p) * term(exchanged(errors));
}

}  // namespace

at::Tensor group_loss_with(const Objective& objective, const GroupErrors& errors, const ObjectiveParams& params,
                           const LossOptions& options) {
  const GroupErrors roles = exchanged_where_marked(errors);
  at::Tensor loss = preference_term(objective, scaled(roles), params, options);
  if (errors.drop_margin.defined()) {
    loss = at::where(errors.drop_margin.to(at::kBool), at::zeros_like(loss), loss);
  }
  if (options.sft_weight > 0) loss = loss + options.sft_weight * chosen_error(objective, roles);
  if (options.anchor_weight > 0) loss = loss + options.anchor_weight * roles.drift.mean(1);
  return loss;
}

}  // namespace prefusion::losses

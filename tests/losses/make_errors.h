#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "core/rng.h"
#include "losses/registry.h"

namespace prefusion::tests {

// Errors of B groups of k items: fp64 and of the size they have in training, with the policy a little worse than the
// reference on average (then KTO's offset, which carries no gradient, is zero). Labels descend within each group.
inline losses::GroupErrors make_errors(int64_t num_groups, int64_t k, uint64_t seed = 1) {
  const auto normal = [&](uint64_t item) {
    return philox_randn({num_groups, k}, {.seed = seed, .item = item}, RandomPurpose::kOther).to(at::kDouble);
  };
  losses::GroupErrors errors;
  errors.error_ref = 0.1 + 0.02 * normal(0).abs();
  errors.error = errors.error_ref + 3e-4 + 3e-4 * normal(1);
  errors.labels = at::linspace(1.0, 0.0, std::max<int64_t>(k, 2), at::kDouble).slice(0, 0, k).repeat({num_groups, 1});
  if (k == 1) errors.labels = at::arange(num_groups, at::kDouble).remainder(2).unsqueeze(1);
  return errors;
}

// Items in a group of what the objective trains on.
inline int64_t items_per_group(const losses::ObjectiveInfo& info) {
  switch (info.data) {
    case losses::DataKind::kPair: return 2;
    case losses::DataKind::kList: return 4;
    default: return 1;
  }
}

// Errors that fit what the objective trains on, and whatever else it needs.
inline losses::GroupErrors make_errors_for(const losses::ObjectiveInfo& info, int64_t num_groups, uint64_t seed = 1) {
  losses::GroupErrors errors = make_errors(num_groups, items_per_group(info), seed);
  const auto normal = [&](at::IntArrayRef shape, uint64_t item) {
    return philox_randn(shape, {.seed = seed, .item = item}, RandomPurpose::kOther).to(at::kDouble);
  };
  if (info.needs_drift) errors.drift = 1e-3 * normal(errors.error.sizes(), 2).square();
  if (info.needs_residual_dot) errors.residual_dot = 0.09 + 0.005 * normal({num_groups}, 3);
  if (info.needs_prompt_distance) {
    const at::Tensor position = normal({num_groups, 1}, 4);
    errors.prompt_distance = 0.2 * (position - position.t()).abs();
  }
  if (info.needs_scores) errors.scores = 0.2 + 0.02 * normal(errors.error.sizes(), 5);
  errors.has_item_prompts = info.needs_item_prompts;
  errors.is_masked = info.needs_mask;
  errors.latent_source = info.latent_source;
  return errors;
}

// The groups of `errors` at the given positions.
inline losses::GroupErrors groups_at(const losses::GroupErrors& errors, const std::vector<int64_t>& positions) {
  const at::Tensor index = at::tensor(positions, at::kLong);
  losses::GroupErrors some = errors;
  for (at::Tensor* tensor :
       {&some.error, &some.error_ref, &some.labels, &some.scores, &some.weights, &some.drift, &some.residual_dot,
        &some.residual_square, &some.prompt_distance, &some.drop_margin, &some.swap, &some.error_scale}) {
    if (tensor->defined()) *tensor = tensor->index_select(0, index);
  }
  if (some.prompt_distance.defined()) some.prompt_distance = some.prompt_distance.index_select(1, index);
  return some;
}

inline losses::ObjectiveParams default_params(const std::string& name) {
  return losses::resolve_params(losses::find_objective(name).info, "", std::nullopt, std::nullopt);
}

inline losses::LossOutput compute(const std::string& name, const losses::GroupErrors& errors,
                                  const std::string& args = "") {
  const losses::Objective& objective = losses::find_objective(name);
  return objective.compute(errors, losses::resolve_params(objective.info, args, std::nullopt, std::nullopt));
}

inline double loss_of(const std::string& name, const losses::GroupErrors& errors, const std::string& args = "") {
  return compute(name, errors, args).loss.item<double>();
}

// d loss / d error, [B, k].
inline at::Tensor gradient_of(const std::string& name, losses::GroupErrors errors, const std::string& args = "") {
  errors.error = errors.error.detach().clone().requires_grad_();
  compute(name, errors, args).loss.backward();
  return errors.error.grad();
}

// The two items of every pair exchanged.
inline losses::GroupErrors swapped(const losses::GroupErrors& errors) {
  losses::GroupErrors other = errors;
  other.error = errors.error.flip(1);
  other.error_ref = errors.error_ref.flip(1);
  return other;
}

inline double log_sigmoid(double x) {
  return -std::log1p(std::exp(-x));
}

}  // namespace prefusion::tests

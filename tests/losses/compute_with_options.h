#pragma once

#include "tests/losses/make_errors.h"

namespace prefusion::tests {

inline losses::LossOutput compute_with(const losses::LossOptions& options, const std::string& name,
                                       const losses::GroupErrors& errors, const std::string& args = "") {
  const losses::Objective& objective = losses::find_objective(name);
  return objective.compute(errors, losses::resolve_params(objective.info, args, {}, {}), options);
}

inline double loss_with(const losses::LossOptions& options, const std::string& name, const losses::GroupErrors& errors,
                        const std::string& args = "") {
  return compute_with(options, name, errors, args).loss.item<double>();
}

inline at::Tensor gradient_with(const losses::LossOptions& options, const std::string& name,
                                losses::GroupErrors errors) {
  errors.error = errors.error.detach().clone().requires_grad_();
  compute_with(options, name, errors).loss.backward();
  return errors.error.grad();
}

// Everything an option may need, for any objective.
inline losses::GroupErrors complete_errors(const losses::ObjectiveInfo& info, int64_t num_groups) {
  losses::ObjectiveInfo all = info;
  all.needs_drift = all.needs_residual_dot = true;
  return make_errors_for(all, num_groups);
}

}  // namespace prefusion::tests

#include "losses/group_math.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::losses {

at::Tensor log1p_exp(const at::Tensor& x) {
  return -at::log_sigmoid(-x);
}

at::Tensor smoothed_logistic(const at::Tensor& u, double eps) {
  return (1 - eps) * log1p_exp(-u) + eps * log1p_exp(u);
}

at::Tensor improvement(const GroupErrors& errors) {
  // The reference is a constant of the objective whatever the caller's graph says.
  return errors.error_ref.detach() - errors.error;
}

at::Tensor pair_improvement(const GroupErrors& errors) {
  const at::Tensor s = improvement(errors);
  return s.select(1, 0) - s.select(1, 1);
}

at::Tensor residual_squares(const GroupErrors& errors) {
  return (errors.residual_square.defined() ? errors.residual_square : errors.error).detach();
}

at::Tensor preference(const GroupErrors& errors) {
  const auto options = errors.error.options();
  if (errors.labels.defined()) return errors.labels.detach().to(options);
  const int64_t k = errors.error.size(1);
  if (errors.scores.defined()) return errors.scores.detach().to(options);
  check_run(k == 2, "groups of ", k, " items need labels or scores to be ordered");
  return at::stack({at::ones({errors.error.size(0)}, options), at::zeros({errors.error.size(0)}, options)}, 1).detach();
}

at::Tensor reward_or_preference(const GroupErrors& errors) {
  return errors.scores.defined() ? errors.scores.detach().to(errors.error.options()) : preference(errors);
}

at::Tensor desirability(const GroupErrors& errors, const char* objective) {
  check_run(errors.labels.defined() || errors.error.size(1) == 2, objective, ": needs labels (1 desirable, 0 not)");
  return errors.labels.defined() ? errors.labels.detach().to(errors.error.options()) : preference(errors);
}

at::Tensor preferred_pairs(const at::Tensor& preference) {
  return (preference.unsqueeze(2) > preference.unsqueeze(1)).to(preference.dtype());
}

at::Tensor pair_differences(const at::Tensor& x) {
  return x.unsqueeze(2) - x.unsqueeze(1);
}

at::Tensor order_best_first(const at::Tensor& preference) {
  return std::get<1>(at::sort(preference, /*stable=*/true, /*dim=*/1, /*descending=*/true));
}

}  // namespace prefusion::losses

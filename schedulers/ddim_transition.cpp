#include "schedulers/ddim_transition.h"

#include <ATen/ATen.h>

#include "schedulers/discrete_prediction.h"
#include "schedulers/sample_limits.h"

namespace prefusion::schedulers {

DdimTransition ddim_transition(const SchedulerConfig& resolved, const at::Tensor& prediction, const at::Tensor& sample,
                               const at::Tensor& alpha, const at::Tensor& alpha_previous, double eta) {
  const auto [clean, noise] =
      split_prediction(resolved.prediction_type, prediction, sample, alpha.sqrt(), (1 - alpha).sqrt());
  DdimTransition transition;
  transition.clean = limit_sample(resolved, clean);
  transition.deviation = eta > 0 ? eta * ((1 - alpha_previous) / (1 - alpha) * (1 - alpha / alpha_previous)).sqrt()
                                 : at::zeros_like(alpha);
  // Where all noise is drawn afresh (eta = 1 from zero signal) rounding can leave the difference below zero.
  const at::Tensor remaining = at::clamp_min(1 - alpha_previous - transition.deviation.square(), 0);
  transition.mean = alpha_previous.sqrt() * transition.clean + remaining.sqrt() * noise;
  return transition;
}

}  // namespace prefusion::schedulers

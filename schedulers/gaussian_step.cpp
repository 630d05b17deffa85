#include "schedulers/gaussian_step.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "kernels/item_error/item_error.h"
#include "schedulers/per_item.h"

namespace prefusion::schedulers {

at::Tensor draw(const GaussianStep& step, const at::Tensor& noise) {
  return step.mean + align_to(step.std, step.mean) * noise.to(step.mean.scalar_type());
}

at::Tensor mean_log_prob(const GaussianStep& step, const at::Tensor& next) {
  static const double kHalfLogTwoPi = 0.5 * std::log(2 * std::numbers::pi);
  return -kernels::item_error(step.mean, next) / (2 * step.std.square()) - step.std.log() - kHalfLogTwoPi;
}

at::Tensor mean_kl(const at::Tensor& mean, const at::Tensor& mean_ref, const at::Tensor& std) {
  return kernels::item_error(mean, mean_ref) / (2 * std.square());
}

}  // namespace prefusion::schedulers

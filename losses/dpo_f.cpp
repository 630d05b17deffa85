#include "losses/dpo_f.h"

#include <ATen/ATen.h>

#include <cmath>

#include "losses/group_math.h"

namespace prefusion::losses {
namespace {

// exp(x) - 1, above x = 30 its tangent there: e^30 squared is still a finite fp32 gradient norm, and a line keeps
// pulling back the pairs that a cut-off would abandon.
at::Tensor tangent_expm1(const at::Tensor& x) {
  constexpr double kTangentAbove = 30;
  return at::expm1(x.clamp_max(kTangentAbove)) + std::exp(kTangentAbove) * (x - kTangentAbove).clamp_min(0);
}

// f of the divergence up to a constant, which cancels: expm1 in place of exp keeps the digits of small differences.
at::Tensor bent(const at::Tensor& x, const std::string& divergence, double alpha) {
  if (divergence == "forward-kl") return -tangent_expm1(-x);
  if (divergence == "jensen-shannon") return -log1p_exp(-x);
  if (divergence == "alpha") return tangent_expm1((alpha - 1) * x) / (alpha - 1);
  return x;
}

}  // namespace

at::Tensor dpo_f_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const double scale = params.get("scale");
  const at::Tensor x = params.kappa / scale * improvement(errors);
  const at::Tensor f = bent(x, params.choice("divergence"), params.get("alpha"));
  return log1p_exp(-scale * (f.select(1, 0) - f.select(1, 1)));
}

}  // namespace prefusion::losses

#include "nn/rms_norm.h"

#include <ATen/ATen.h>

namespace prefusion::nn {

RMSNormImpl::RMSNormImpl(int64_t dim, double eps, bool has_weight) : eps_(eps) {
  if (has_weight) weight = register_parameter("weight", at::empty({dim}, at::kFloat));
}

at::Tensor RMSNormImpl::forward(const at::Tensor& input) {
  return at::rms_norm(input, {input.size(-1)}, weight, eps_);
}

}  // namespace prefusion::nn

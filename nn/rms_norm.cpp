#include "nn/rms_norm.h"

#include <ATen/ATen.h>

#include <optional>

namespace prefusion::nn {

RMSNormImpl::RMSNormImpl(int64_t dim, double eps, bool has_weight) : eps_(eps) {
  if (has_weight) weight = register_parameter("weight", at::empty({dim}, at::kFloat));
}

at::Tensor RMSNormImpl::forward(const at::Tensor& input) {
  // An undefined tensor is not the same as none to this operator.
  const auto optional_weight = weight.defined() ? std::optional<at::Tensor>(weight) : std::nullopt;
  return at::rms_norm(input, {input.size(-1)}, optional_weight, eps_);
}

}  // namespace prefusion::nn

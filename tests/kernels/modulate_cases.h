#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "tests/kernels/exactness.h"

// Inputs of the modulated layer norm, and what ATen makes of them.
namespace prefusion::kernels {

constexpr double kEps = 1e-6;

// The three inputs, and after differentiate() what belongs to them.
struct Inputs {
  at::Tensor input, scale, shift, grad_output;

  Inputs to(const at::TensorOptions& options) const {
    return {input.to(options), scale.to(options), shift.to(options), grad_output.to(options)};
  }
};

inline Inputs random_inputs(int64_t batch, int64_t rows, int64_t width) {
  return {at::randn({batch, rows, width}, at::kDouble) * 2 + 0.5, at::randn({batch, width}, at::kDouble),
          at::randn({batch, width}, at::kDouble), at::randn({batch, rows, width}, at::kDouble)};
}

inline at::Tensor composed(const at::Tensor& input, const at::Tensor& scale, const at::Tensor& shift) {
  const at::Tensor normed = at::layer_norm(input, {input.size(-1)}, {}, {}, kEps);
  return at::addcmul(shift.unsqueeze(1), normed, 1 + scale.unsqueeze(1));
}

// Output, then the gradients of input, scale and shift.
template <typename Operation>
std::vector<at::Tensor> differentiate(const Operation& operation, const Inputs& inputs) {
  const at::Tensor input = inputs.input.detach().requires_grad_();
  const at::Tensor scale = inputs.scale.detach().requires_grad_(), shift = inputs.shift.detach().requires_grad_();
  const at::Tensor output = operation(input, scale, shift);
  auto results = torch::autograd::grad({output}, {input, scale, shift}, {inputs.grad_output});
  results.insert(results.begin(), output.detach());
  return results;
}

inline double rounding(at::ScalarType dtype) {
  return tests::rounding(dtype, 3e-7, 2e-14);
}

}  // namespace prefusion::kernels

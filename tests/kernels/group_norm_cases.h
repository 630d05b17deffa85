#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "kernels/group_norm/group_norm.h"

// Inputs of the group norm, and what ATen makes of them.
namespace prefusion::kernels {

struct GroupNormCase {
  int64_t batch, channels, height, width, groups;
};

struct GroupNormInputs {
  at::Tensor input, shift, weight, bias, grad_output;

  GroupNormInputs to(const at::TensorOptions& options) const {
    return {input.to(options), shift.to(options), weight.to(options), bias.to(options), grad_output.to(options)};
  }
};

inline GroupNormInputs random_inputs(const GroupNormCase& c) {
  const auto random = [](at::IntArrayRef shape) { return at::randn(shape, at::kDouble); };
  const auto picture = [&] {
    return random({c.batch, c.channels, c.height, c.width}).contiguous(at::MemoryFormat::ChannelsLast);
  };
  // Channels differ in mean and deviation.
  return {picture() * random({1, c.channels, 1, 1}) + 2 * random({1, c.channels, 1, 1}), random({c.batch, c.channels}),
          random({c.channels}), random({c.channels}), picture()};
}

inline at::Tensor composed(const GroupNormInputs& inputs, const GroupNormOptions& options) {
  const at::Tensor shifted = inputs.input + inputs.shift.unsqueeze(-1).unsqueeze(-1);
  const at::Tensor norm = at::group_norm(shifted, options.num_groups, inputs.weight, inputs.bias, options.eps);
  return options.with_silu ? at::silu(norm) : norm;
}

inline at::Tensor ours(const GroupNormInputs& inputs, const GroupNormOptions& options) {
  return group_norm(inputs.input, inputs.shift, inputs.weight, inputs.bias, options);
}

// Output, then the gradients of input, shift, weight and bias.
template <typename Operation>
std::vector<at::Tensor> differentiate(const Operation& operation, const GroupNormInputs& inputs,
                                      const GroupNormOptions& options) {
  const auto leaf = [](const at::Tensor& tensor) { return tensor.detach().requires_grad_(); };
  const GroupNormInputs leaves{leaf(inputs.input), leaf(inputs.shift), leaf(inputs.weight), leaf(inputs.bias), {}};
  const at::Tensor output = operation(leaves, options);
  auto results =
      torch::autograd::grad({output}, {leaves.input, leaves.shift, leaves.weight, leaves.bias}, {inputs.grad_output});
  results.insert(results.begin(), output.detach());
  return results;
}

}  // namespace prefusion::kernels

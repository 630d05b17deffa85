#include "nn/lean_ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <optional>

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

class FrozenConv2d : public Function<FrozenConv2d> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding) {
    context->save_for_backward({weight});
    context->saved_data["sizes"] = input.sizes().vec();
    context->saved_data["strides"] = input.strides().vec();
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    return at::conv2d(input, weight, bias, {stride, stride}, {padding, padding});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor weight = context->get_saved_variables()[0];
    const int64_t stride = context->saved_data["stride"].toInt();
    const int64_t padding = context->saved_data["padding"].toInt();
    // The input's gradient depends on the shape of the input, not on its values.
    const at::Tensor input = at::empty_strided(context->saved_data["sizes"].toIntVector(),
                                               context->saved_data["strides"].toIntVector(), gradients[0].options());
    const auto [input_gradient, unused_weight, unused_bias] = at::convolution_backward(
        gradients[0], input, weight, /*bias_sizes=*/std::nullopt, {stride, stride}, {padding, padding}, {1, 1},
        /*transposed=*/false, {0, 0}, /*groups=*/1, {true, false, false});
    return {input_gradient, {}, {}, {}, {}};
  }
};

int64_t pixels_of(const at::Tensor& input) {
  return input.numel() / std::max<int64_t>(1, input.size(0) * input.size(1));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> normalise(const at::Tensor& input, const at::Tensor& weight,
                                                         const at::Tensor& bias, int64_t num_groups, double eps) {
  return at::native_group_norm(input, weight, bias, input.size(0), input.size(1), pixels_of(input), num_groups, eps);
}

class GroupNormSilu : public Function<GroupNormSilu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& bias, int64_t num_groups, double eps) {
    const auto [normalised, mean, rstd] = normalise(input, weight, bias, num_groups, eps);
    context->save_for_backward({input, weight, bias, mean, rstd});
    context->saved_data["num_groups"] = num_groups;
    context->saved_data["eps"] = eps;
    return at::silu_(const_cast<at::Tensor&>(normalised));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &bias = saved[2];
    const int64_t num_groups = context->saved_data["num_groups"].toInt();
    const double eps = context->saved_data["eps"].toDouble();
    const at::Tensor normalised = std::get<0>(normalise(input, weight, bias, num_groups, eps));
    const at::Tensor gradient = at::silu_backward(gradients[0], normalised).contiguous(input.suggest_memory_format());
    // ATen's channels-last kernel writes the input's gradient whether it is wanted or not.
    const std::array<bool, 3> wanted = {true, context->needs_input_grad(1), context->needs_input_grad(2)};
    const auto [of_input, of_weight, of_bias] =
        at::native_group_norm_backward(gradient, input, saved[3], saved[4], weight, input.size(0), input.size(1),
                                       pixels_of(input), num_groups, wanted);
    return {of_input, of_weight, of_bias, {}, {}};
  }
};

bool needs_gradient(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad();
}

}  // namespace

bool keeps_too_much(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  return at::GradMode::is_enabled() && needs_gradient(input) && !needs_gradient(weight) && !needs_gradient(bias);
}

at::Tensor frozen_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                         int64_t padding) {
  const auto given_bias = bias.defined() ? std::make_optional(bias) : std::nullopt;
  return FrozenConv2d::apply(input, weight, given_bias, stride, padding);
}

at::Tensor group_norm_silu(const at::Tensor& input, int64_t num_groups, const at::Tensor& weight,
                           const at::Tensor& bias, double eps) {
  return GroupNormSilu::apply(input.contiguous(input.suggest_memory_format()), weight, bias, num_groups, eps);
}

}  // namespace prefusion::nn

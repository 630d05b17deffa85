#include "nn/frozen_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <set>

#include "core/error.h"
#include "nn/lora.h"
#include "nn/product_conv2d.h"

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr double kInt8Largest = 127;
constexpr double kFp8Largest = 448;

// [out] to a shape that broadcasts against a weight [out, ...].
at::Tensor per_channel(const at::Tensor& scale, const at::Tensor& weight) {
  std::vector<int64_t> shape(static_cast<size_t>(weight.dim()), 1);
  shape[0] = -1;
  return scale.view(shape);
}

std::optional<at::Tensor> given(const at::Tensor& bias) {
  return bias.defined() ? std::make_optional(bias) : std::nullopt;
}

class QuantisedLinear : public Function<QuantisedLinear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& scale, const std::optional<at::Tensor>& bias) {
    context->save_for_backward({weight, scale});
    return at::linear(input, dequantise_weight(weight, scale, input.scalar_type()), bias);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {gradients[0].matmul(dequantise_weight(saved[0], saved[1], gradients[0].scalar_type())), {}, {}, {}};
  }
};

class QuantisedConv2d : public Function<QuantisedConv2d> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& scale, const std::optional<at::Tensor>& bias, int64_t stride,
                            int64_t padding) {
    context->save_for_backward({weight, scale});
    context->saved_data["sizes"] = input.sizes().vec();
    context->saved_data["strides"] = input.strides().vec();
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    const at::Tensor values = dequantise_weight(weight, scale, input.scalar_type());
    if (is_faster_as_product(input, values, stride, padding)) {
      return product_conv2d(input, values, bias.value_or(at::Tensor()), stride, padding);
    }
    return at::conv2d(input, values, bias, {stride, stride}, {padding, padding});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const int64_t stride = context->saved_data["stride"].toInt();
    const int64_t padding = context->saved_data["padding"].toInt();
    // The input's gradient depends on the shape of the input, not on its values.
    const at::Tensor input = at::empty_strided(context->saved_data["sizes"].toIntVector(),
                                               context->saved_data["strides"].toIntVector(), gradients[0].options());
    const at::Tensor weight = dequantise_weight(saved[0], saved[1], gradients[0].scalar_type());
    const auto [input_gradient, unused_weight, unused_bias] = at::convolution_backward(
        gradients[0], input, weight, /*bias_sizes=*/std::nullopt, {stride, stride}, {padding, padding}, {1, 1},
        /*transposed=*/false, {0, 0}, /*groups=*/1, {true, false, false});
    return {input_gradient, {}, {}, {}, {}, {}};
  }
};

bool is_in_a_block(const std::string& path) {
  const std::string first = path.substr(0, path.find('.'));
  return first.size() < path.size() && (first.ends_with("block") || first.ends_with("blocks"));
}

}  // namespace

FrozenDtype parse_frozen_dtype(const std::string& name, const std::string& flag) {
  if (name == "int8") return FrozenDtype::kInt8;
  check_usage(name == "fp8", flag, " ", name, ": expected int8 or fp8");
  return FrozenDtype::kFp8;
}

QuantisedWeight quantise_weight(const at::Tensor& weight, FrozenDtype dtype) {
  at::NoGradGuard no_grad;
  const at::Tensor values = weight.detach().to(at::kFloat);
  const bool is_int8 = dtype == FrozenDtype::kInt8;
  at::Tensor scale = values.abs().flatten(1).amax(1).div_(is_int8 ? kInt8Largest : kFp8Largest);
  scale = at::where(scale > 0, scale, at::ones_like(scale));  // a channel of zeros
  const at::Tensor scaled = values / per_channel(scale, values);
  return {.weight = is_int8 ? scaled.round_().to(at::kChar) : scaled.to(at::kFloat8_e4m3fn), .scale = scale};
}

at::Tensor dequantise_weight(const at::Tensor& weight, const at::Tensor& scale, at::ScalarType dtype) {
  return weight.to(at::kFloat).mul_(per_channel(scale, weight)).to(dtype);
}

int64_t quantise_frozen_weights(torch::nn::Module& network, FrozenDtype dtype) {
  at::NoGradGuard no_grad;
  std::set<const c10::TensorImpl*> replaced;
  for (const LoraLayer& layer : lora_layers(network)) {
    if (!is_in_a_block(layer.path)) continue;
    at::Tensor& weight = layer.target->base_weight();
    QuantisedWeight bytes = quantise_weight(weight, dtype);
    weight.set_requires_grad(false);
    weight.set_data(bytes.weight);
    layer.layer->register_buffer(kWeightScale, std::move(bytes.scale));
    replaced.insert(weight.unsafeGetTensorImpl());
  }
  for (at::Tensor& parameter : network.parameters()) {
    if (replaced.contains(parameter.unsafeGetTensorImpl())) continue;
    parameter.set_requires_grad(false);
    parameter.set_data(parameter.detach().clone());
  }
  return static_cast<int64_t>(replaced.size());
}

bool is_quantised(const at::Tensor& weight) {
  return weight.scalar_type() == at::kChar || weight.scalar_type() == at::kFloat8_e4m3fn;
}

at::Tensor quantised_linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& scale,
                            const at::Tensor& bias) {
  return QuantisedLinear::apply(input, weight, scale, given(bias));
}

at::Tensor quantised_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& scale,
                            const at::Tensor& bias, int64_t stride, int64_t padding) {
  return QuantisedConv2d::apply(input, weight, scale, given(bias), stride, padding);
}

}  // namespace prefusion::nn

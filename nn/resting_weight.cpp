#include "nn/resting_weight.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <optional>

#include "nn/frozen_weights.h"
#include "nn/product_conv2d.h"

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// What a graph keeps of a weight.
struct Handle : torch::CustomClassHolder {
  explicit Handle(std::shared_ptr<const RestingWeight> w) : weight(std::move(w)) {}
  std::shared_ptr<const RestingWeight> weight;
};

using HandlePointer = c10::intrusive_ptr<Handle>;

void keep(AutogradContext* context, const HandlePointer& handle) {
  context->saved_data["weight"] = c10::IValue::make_capsule(handle);
}

at::Tensor kept_weight(AutogradContext* context, at::ScalarType dtype) {
  const auto capsule = context->saved_data["weight"].toCapsule();
  return static_cast<const Handle&>(*capsule).weight->value(dtype);
}

std::optional<at::Tensor> given(const at::Tensor& bias) {
  return bias.defined() ? std::make_optional(bias) : std::nullopt;
}

class RestingLinear : public Function<RestingLinear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const HandlePointer& handle,
                            const std::optional<at::Tensor>& bias) {
    keep(context, handle);
    return at::linear(input, handle->weight->value(input.scalar_type()), bias);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {gradients[0].matmul(kept_weight(context, gradients[0].scalar_type())), {}, {}};
  }
};

class RestingConv2d : public Function<RestingConv2d> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const HandlePointer& handle,
                            const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding) {
    keep(context, handle);
    context->saved_data["sizes"] = input.sizes().vec();
    context->saved_data["strides"] = input.strides().vec();
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    const at::Tensor weight = handle->weight->value(input.scalar_type());
    if (is_faster_as_product(input, weight, stride, padding)) {
      return product_conv2d(input, weight, bias.value_or(at::Tensor()), stride, padding);
    }
    return at::conv2d(input, weight, bias, {stride, stride}, {padding, padding});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const int64_t stride = context->saved_data["stride"].toInt();
    const int64_t padding = context->saved_data["padding"].toInt();
    // The input's gradient depends on the shape of the input, not on its values.
    const at::Tensor input = at::empty_strided(context->saved_data["sizes"].toIntVector(),
                                               context->saved_data["strides"].toIntVector(), gradients[0].options());
    const at::Tensor weight = kept_weight(context, gradients[0].scalar_type());
    const auto [input_gradient, unused_weight, unused_bias] = at::convolution_backward(
        gradients[0], input, weight, /*bias_sizes=*/std::nullopt, {stride, stride}, {padding, padding}, {1, 1},
        /*transposed=*/false, {0, 0}, /*groups=*/1, {true, false, false});
    return {input_gradient, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor RestingWeight::value(at::ScalarType dtype) const {
  const at::Tensor here = stream ? stream->fetch(number) : stored;
  return scale.defined() ? dequantise_weight(here, scale, dtype) : here.to(dtype);
}

at::Tensor resting_linear(const at::Tensor& input, const std::shared_ptr<const RestingWeight>& weight,
                          const at::Tensor& bias) {
  return RestingLinear::apply(input, c10::make_intrusive<Handle>(weight), given(bias));
}

at::Tensor resting_conv2d(const at::Tensor& input, const std::shared_ptr<const RestingWeight>& weight,
                          const at::Tensor& bias, int64_t stride, int64_t padding) {
  return RestingConv2d::apply(input, c10::make_intrusive<Handle>(weight), given(bias), stride, padding);
}

}  // namespace prefusion::nn

#include "nn/product_conv2d.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct Window {
  int64_t size, stride, padding;

  bool is_pixel() const { return size == 1 && stride == 1 && padding == 0; }
  int64_t positions(int64_t length) const { return (length + 2 * padding - size) / stride + 1; }
};

// [B, C, H, W] -> [B, C * k * k, positions]
at::Tensor columns_of(const at::Tensor& input, const Window& window) {
  if (window.is_pixel()) return input.flatten(2);
  return at::im2col(input, {window.size, window.size}, {1, 1}, {window.padding, window.padding},
                    {window.stride, window.stride});
}

// Its transpose: the sum of each pixel's columns.
at::Tensor sum_columns(const at::Tensor& columns, const Window& window, at::IntArrayRef sizes) {
  if (window.is_pixel()) return columns.view(sizes);
  return at::col2im(columns, sizes.slice(2), {window.size, window.size}, {1, 1}, {window.padding, window.padding},
                    {window.stride, window.stride});
}

// [B, C, n] -> [C, B * n]
at::Tensor channels_first(const at::Tensor& rows) {
  return rows.transpose(0, 1).flatten(1);
}

class ProductConv2d : public Function<ProductConv2d> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding) {
    context->save_for_backward({weight.requires_grad() ? input : at::Tensor(), weight});
    context->saved_data["sizes"] = input.sizes().vec();
    context->saved_data["has_bias"] = bias.has_value();
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    const Window window{weight.size(2), stride, padding};
    at::Tensor output = at::matmul(weight.flatten(1), columns_of(input, window));
    if (bias) output.add_(bias->view({-1, 1}));
    return output.view(
        {input.size(0), weight.size(0), window.positions(input.size(2)), window.positions(input.size(3))});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1];
    const Window window{weight.size(2), context->saved_data["stride"].toInt(), context->saved_data["padding"].toInt()};
    const at::Tensor gradient = gradients[0].flatten(2);
    at::Tensor of_input, of_weight, of_bias;
    if (context->needs_input_grad(0)) {
      of_input =
          sum_columns(at::matmul(weight.flatten(1).t(), gradient), window, context->saved_data["sizes"].toIntVector());
    }
    if (context->needs_input_grad(1)) {
      const at::Tensor columns = channels_first(columns_of(input, window));
      of_weight = at::mm(channels_first(gradient), columns.t()).view(weight.sizes());
    }
    const bool has_bias = context->saved_data["has_bias"].toBool();  // absent ones are not counted among the inputs
    if (has_bias && context->needs_input_grad(2)) of_bias = gradient.sum(at::IntArrayRef{0, 2});
    return {of_input, of_weight, of_bias, {}, {}};
  }
};

}  // namespace

bool is_faster_as_product(const at::Tensor& input, const at::Tensor& weight, int64_t stride, int64_t padding) {
  // benchmarks/peer/convolutions.py: 3 x 3 of 1280 channels gain up to 256 pixels and are level at 512.
  constexpr int64_t kLargeWeight = 6'000'000;
  constexpr int64_t kFewPixels = 384;
  if (!input.is_cpu() || input.scalar_type() != at::kFloat) return false;
  const Window window{weight.size(2), stride, padding};
  if (window.is_pixel()) return true;
  const int64_t pixels = input.size(0) * window.positions(input.size(2)) * window.positions(input.size(3));
  return weight.numel() >= kLargeWeight && pixels <= kFewPixels;
}

at::Tensor product_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                          int64_t padding) {
  const auto given_bias = bias.defined() ? std::make_optional(bias) : std::nullopt;
  return ProductConv2d::apply(input, weight, given_bias, stride, padding);
}

}  // namespace prefusion::nn

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

// weight [out, K] times columns [B, K, n], plus bias [out] -> [B, out, n]; rounded once. The weight passes once for all
// items: few columns meet a large weight here.
at::Tensor product_of_all(const at::Tensor& weight, const at::Tensor& columns, const std::optional<at::Tensor>& bias) {
  const at::Tensor all = channels_first(columns);
  const at::Tensor output = bias ? at::addmm(bias->unsqueeze(1), weight, all) : at::mm(weight, all);
  return output.view({weight.size(0), columns.size(0), columns.size(2)}).transpose(0, 1).contiguous();
}

// The same, a product an item: its values depend on it alone. ATen's product of a matrix with a batch takes another way
// than that with one item on some processors, and copies half-precision weights for every item.
at::Tensor product_of_each(const at::Tensor& weight, const at::Tensor& columns, const std::optional<at::Tensor>& bias) {
  const at::Tensor output = at::empty({columns.size(0), weight.size(0), columns.size(2)}, columns.options());
  for (int64_t item = 0; item < columns.size(0); ++item) {
    at::Tensor own = output[item];
    if (bias) {
      at::addmm_out(own, bias->unsqueeze(1), weight, columns[item]);
    } else {
      at::mm_out(own, weight, columns[item]);
    }
  }
  return output;
}

// Of the output's gradient [B, out, H', W'].
at::Tensor input_gradient(const at::Tensor& weight, const at::Tensor& gradient, const Window& window,
                          at::IntArrayRef sizes) {
  const at::Tensor transposed = weight.flatten(1).t(), rows = gradient.flatten(2);
  if (window.is_pixel()) return product_of_each(transposed, rows, /*bias=*/{}).view(sizes);
  if (weight.scalar_type() == at::kFloat) return sum_columns(at::matmul(transposed, rows), window, sizes);
  // Columns would be rounded before up to k * k of them are added up in a pixel, and after each.
  const int64_t stride = window.stride, padding = window.padding;
  return std::get<0>(at::convolution_backward(gradient, at::empty(sizes, gradient.options()), weight,
                                              /*bias_sizes=*/std::nullopt, {stride, stride}, {padding, padding}, {1, 1},
                                              /*transposed=*/false, {0, 0}, /*groups=*/1, {true, false, false}));
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
    const at::Tensor columns = columns_of(input, window), rows = weight.flatten(1);
    const at::Tensor output =
        window.is_pixel() ? product_of_each(rows, columns, bias) : product_of_all(rows, columns, bias);
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
      of_input = input_gradient(weight, gradients[0], window, context->saved_data["sizes"].toIntVector());
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

bool has_bf16_units() {
#if defined(__x86_64__)
  static const bool has_units = __builtin_cpu_supports("avx512bf16");
  return has_units;
#else
  return false;
#endif
}

// Pixels that come out up to which a product is faster, by benchmarks/peer/convolutions.py: 3 x 3 of 1280 channels gain
// up to 256 pixels in fp32, and not at 512. In bf16 they gain up to 128, those from 2560 to 1280 up to 256.
int64_t few_pixels(const at::Tensor& weight) {
  constexpr int64_t kLargeWeight = 6'000'000, kHugeWeight = 25'000'000;
  if (weight.numel() < kLargeWeight) return 0;
  return weight.scalar_type() == at::kFloat || weight.numel() >= kHugeWeight ? 384 : 128;
}

}  // namespace

bool is_faster_as_product(const at::Tensor& input, const at::Tensor& weight, int64_t stride, int64_t padding) {
  if (!input.is_cpu()) return false;
  const bool is_fast_bf16 = input.scalar_type() == at::kBFloat16 && has_bf16_units();
  if (input.scalar_type() != at::kFloat && !is_fast_bf16) return false;
  const Window window{weight.size(2), stride, padding};
  if (window.is_pixel()) return true;
  return input.size(0) * window.positions(input.size(2)) * window.positions(input.size(3)) <= few_pixels(weight);
}

at::Tensor product_conv2d(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                          int64_t padding) {
  const auto given_bias = bias.defined() ? std::make_optional(bias) : std::nullopt;
  return ProductConv2d::apply(input, weight, given_bias, stride, padding);
}

}  // namespace prefusion::nn

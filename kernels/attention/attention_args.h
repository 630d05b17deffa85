#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/attention/block_shape.h"

namespace prefusion::kernels::detail {

inline blockwise::Layout layout_of(const at::Tensor& tensor) {
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// What a launch is told of these tensors.
template <typename Element>
blockwise::AttentionArgs<Element> args_of(const AttentionForward& tensors) {
  blockwise::AttentionArgs<Element> args;
  args.query = tensors.query.const_data_ptr<Element>();
  args.key = tensors.key.const_data_ptr<Element>();
  args.value = tensors.value.const_data_ptr<Element>();
  args.output = tensors.output.mutable_data_ptr<Element>();
  args.log_sum = tensors.log_sum.mutable_data_ptr<float>();
  args.query_layout = layout_of(tensors.query);
  args.key_layout = layout_of(tensors.key);
  args.value_layout = layout_of(tensors.value);
  args.output_layout = layout_of(tensors.output);
  args.num_heads = tensors.query.size(1);
  args.num_queries = static_cast<int>(tensors.query.size(2));
  args.num_keys = static_cast<int>(tensors.key.size(2));
  constexpr double kLog2E = 1.4426950408889634;
  const double scale = 1.0 / std::sqrt(static_cast<double>(tensors.query.size(3)));
  args.scale = static_cast<float>(scale);
  args.scale_log2 = static_cast<float>(scale * kLog2E);
  return args;
}

// [B, H, num_queries] fp32, as in block_shape.h.
at::Tensor row_product_of(const AttentionBackward& tensors);

template <typename Element>
blockwise::AttentionGradArgs<Element> grad_args_of(const AttentionBackward& tensors, const at::Tensor& row_product) {
  blockwise::AttentionGradArgs<Element> args;
  args.forward = args_of<Element>(tensors.forward);
  args.grad_output = tensors.grad_output.const_data_ptr<Element>();
  args.grad_output_layout = layout_of(tensors.grad_output);
  args.row_product = row_product.const_data_ptr<float>();
  args.grad_query = tensors.grad_query.mutable_data_ptr<Element>();
  args.grad_key = tensors.grad_key.mutable_data_ptr<Element>();
  args.grad_value = tensors.grad_value.mutable_data_ptr<Element>();
  args.grad_query_layout = layout_of(tensors.grad_query);
  args.grad_key_layout = layout_of(tensors.grad_key);
  args.grad_value_layout = layout_of(tensors.grad_value);
  return args;
}

}  // namespace prefusion::kernels::detail

#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::kernels {

// input weight^T + bias on the CPU in fp32, without gradients: each row of the result depends on its row of the input
// alone, to the bit, whichever rows share the call and however many threads there are. Matrix products of libraries do
// not promise that: their order of summation may depend on the number of rows. For products of tens to hundreds of rows
// whose results are kept and compared, such as the features of prompts.
//
// input [..., K], weight [N, K], bias [N] or undefined -> [..., N]. Usage error for other shapes, dtypes or devices.
at::Tensor linear_rows(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias);

namespace detail {

// Row-major fp32: output [rows, outputs] = input [rows, inputs] weight^T [outputs, inputs] + bias (null: none).
void linear_rows_cpu(const float* input, const float* weight, const float* bias, float* output, int64_t rows,
                     int64_t inputs, int64_t outputs);

}  // namespace detail
}  // namespace prefusion::kernels

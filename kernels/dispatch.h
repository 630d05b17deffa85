#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "core/error.h"

// What the dispatchers of all operations share.
namespace prefusion::kernels {

// Calls run(T(), Real()): a value of the element type of a floating dtype and one of the type it is computed in, for
// their types alone (.cu files are C++17, which has no template parameters of lambdas).
template <typename Run>
void for_float_type(at::ScalarType dtype, const Run& run) {
  switch (dtype) {
    case at::kDouble: return run(double(), double());
    case at::kBFloat16: return run(at::BFloat16(), float());
    case at::kHalf: return run(at::Half(), float());
    default: return run(float(), float());
  }
}

// Run error for another dtype than for_float_type takes; `what` is the argument.
inline void check_float_type(at::ScalarType dtype, const char* op, const char* what) {
  check_run(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kDouble, op, ": ", what,
            " must be fp32, bf16, fp16 or fp64, found ", c10::toString(dtype));
}

// [B, D] with the elements of a row adjacent, the rows wherever they are.
inline at::Tensor with_dense_rows(const at::Tensor& rows) {
  return rows.stride(1) == 1 || rows.size(1) == 1 ? rows : rows.contiguous();
}

// Of tensors that no version of an operation takes.
[[noreturn]] inline void fail_device(at::Device device, const char* op) {
  check_run(!device.is_cuda(), op, ": prefusion was built without CUDA; build it where nvcc is, or use --device cpu");
  fail_run(op, ": device ", device.str(), " is not supported");
}

}  // namespace prefusion::kernels

// Calls detail::function_cpu or detail::function_cuda with these arguments, by the device; run error for another
// device, or without CUDA in the build.
#ifdef PREFUSION_HAS_CUDA
#define PREFUSION_CALL_FOR(device, op, function, ...)          \
  ((device).is_cpu()    ? detail::function##_cpu(__VA_ARGS__)  \
   : (device).is_cuda() ? detail::function##_cuda(__VA_ARGS__) \
                        : ::prefusion::kernels::fail_device(device, op))
#else
#define PREFUSION_CALL_FOR(device, op, function, ...) \
  ((device).is_cpu() ? detail::function##_cpu(__VA_ARGS__) : ::prefusion::kernels::fail_device(device, op))
#endif

#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/attention/attention_args.h"
#include "kernels/attention/attention_launch.h"
#include "kernels/cuda_launch.h"

namespace prefusion::kernels::detail {
namespace {

using blockwise::AttentionArgs;
using blockwise::AttentionGradArgs;

template <typename Element>
void forward(const AttentionForward& tensors) {
  const AttentionArgs<Element> args = args_of<Element>(tensors);
  const auto stream = c10::cuda::getCurrentCUDAStream().stream();
  const int64_t num_items = tensors.query.size(0);
  switch (tensors.query.size(3)) {
#define PREFUSION_CASE(size) \
  case size: return blockwise::launch_forward<size>(args, num_items, stream);
    PREFUSION_ATTENTION_HEADS(PREFUSION_CASE)
#undef PREFUSION_CASE
  }
}

template <typename Element>
void backward(AttentionBackward& tensors, const at::Tensor& row_product) {
  const AttentionGradArgs<Element> args = grad_args_of<Element>(tensors, row_product);
  const auto stream = c10::cuda::getCurrentCUDAStream().stream();
  const int64_t num_items = tensors.forward.query.size(0);
  switch (tensors.forward.query.size(3)) {
#define PREFUSION_CASE(size) \
  case size: return blockwise::launch_backward<size>(args, num_items, stream);
    PREFUSION_ATTENTION_HEADS(PREFUSION_CASE)
#undef PREFUSION_CASE
  }
}

}  // namespace

at::Tensor row_product_of(const AttentionBackward& tensors) {
  return at::sum(at::mul(tensors.forward.output.to(at::kFloat), tensors.grad_output.to(at::kFloat)), -1).contiguous();
}

void attention_forward_cuda(AttentionForward& tensors) {
  const c10::cuda::CUDAGuard device(tensors.query.device());
  if (tensors.query.scalar_type() == at::kBFloat16) return forward<c10::BFloat16>(tensors);
  forward<c10::Half>(tensors);
}

void attention_backward_cuda(AttentionBackward& tensors) {
  const c10::cuda::CUDAGuard device(tensors.forward.query.device());
  const at::Tensor row_product = row_product_of(tensors);
  if (tensors.forward.query.scalar_type() == at::kBFloat16) return backward<c10::BFloat16>(tensors, row_product);
  backward<c10::Half>(tensors, row_product);
}

bool is_attention_device(at::Device device) {
  if (!device.is_cuda()) return false;
  int major = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()));
  return major >= 8;
}

}  // namespace prefusion::kernels::detail

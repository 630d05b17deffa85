#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/adamw/adamw.h"
#include "kernels/adamw/adamw_element.h"
#include "kernels/cuda_launch.h"

namespace prefusion::kernels::detail {
namespace {

template <typename T>
__global__ void adamw_kernel(T* __restrict__ parameter, float* __restrict__ master, const T* __restrict__ gradient,
                             float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq,
                             const float* __restrict__ count, AdamWSettings s, int64_t total) {
  const AdamWFactors factors = adamw_factors(s.lr, s.beta1, s.beta2, s.eps, s.weight_decay, *count);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += stride) {
    const float weight = adamw_element(master[i], static_cast<float>(gradient[i]), exp_avg[i], exp_avg_sq[i], factors);
    master[i] = weight;
    parameter[i] = static_cast<T>(weight);
  }
}

template <typename T>
void launch(const AdamWArgs& args) {
  const int64_t total = args.parameter.numel();
  adamw_kernel<T><<<grid_size(total), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      args.parameter.mutable_data_ptr<T>(), args.master.mutable_data_ptr<float>(), args.gradient.const_data_ptr<T>(),
      args.exp_avg.mutable_data_ptr<float>(), args.exp_avg_sq.mutable_data_ptr<float>(),
      args.count.const_data_ptr<float>(), args.settings, total);
  check_launch("adamw_step");
}

}  // namespace

void adamw_step_cuda(const AdamWArgs& args) {
  const c10::cuda::CUDAGuard device(args.parameter.device());
  args.parameter.scalar_type() == at::kBFloat16 ? launch<at::BFloat16>(args) : launch<at::Half>(args);
}

}  // namespace prefusion::kernels::detail

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "core/philox.h"
#include "kernels/cuda_launch.h"
#include "kernels/noise_and_target/noise_and_target.h"

namespace prefusion::kernels::detail {
namespace {

__device__ __forceinline__ float target_value(PredictionType type, float x, float n, float a, float s) {
  switch (type) {
    case PredictionType::kEpsilon: return n;
    case PredictionType::kVPrediction: return a * n - s * x;
    case PredictionType::kSample: return x;
    default: return n - x;
  }
}

// A thread makes one Philox block (four normals) and applies it to the k items of the group, so that each normal is
// computed once. index runs over num_groups * blocks.
template <typename T>
__global__ void noise_and_target_kernel(const T* __restrict__ latents, const int64_t* __restrict__ streams,
                                        const float* __restrict__ signal_scale, const float* __restrict__ noise_scale,
                                        T* __restrict__ noisy_latents, float* __restrict__ target, uint64_t seed,
                                        PredictionType type, int64_t num_groups, int64_t k, int64_t num_elements) {
  const int64_t blocks = (num_elements + 3) / 4;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < num_groups * blocks;
       index += stride) {
    const int64_t group = index / blocks;
    const int64_t first = index % blocks * 4;
    const Normal4 normal =
        philox_normal4(seed, static_cast<uint64_t>(streams[group]), static_cast<uint64_t>(index % blocks));
    const float noise[4] = {normal.x, normal.y, normal.z, normal.w};
    for (int64_t item = group * k; item < (group + 1) * k; ++item) {
      const float a = signal_scale[item];
      const float s = noise_scale[item];
      const int64_t offset = item * num_elements + first;
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) {
        if (first + lane < num_elements) {
          const float x = static_cast<float>(latents[offset + lane]);
          noisy_latents[offset + lane] = static_cast<T>(a * x + s * noise[lane]);
          target[offset + lane] = target_value(type, x, noise[lane], a, s);
        }
      }
    }
  }
}

__global__ void group_noise_kernel(const int64_t* __restrict__ streams, float* __restrict__ out, uint64_t seed,
                                   int64_t num_groups, int64_t k, int64_t num_elements) {
  const int64_t blocks = (num_elements + 3) / 4;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < num_groups * blocks;
       index += stride) {
    const int64_t group = index / blocks;
    const int64_t first = index % blocks * 4;
    const Normal4 normal =
        philox_normal4(seed, static_cast<uint64_t>(streams[group]), static_cast<uint64_t>(index % blocks));
    const float noise[4] = {normal.x, normal.y, normal.z, normal.w};
    for (int64_t item = group * k; item < (group + 1) * k; ++item) {
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) {
        if (first + lane < num_elements) out[item * num_elements + first + lane] = noise[lane];
      }
    }
  }
}

template <typename T>
void launch(const NoiseAndTargetArgs& args) {
  const int64_t num_groups = args.latents.size(0);
  const int64_t k = args.latents.size(1);
  const int64_t num_elements = args.latents.numel() / (num_groups * k);  // C*H*W
  const c10::cuda::CUDAGuard device(args.latents.device());
  noise_and_target_kernel<T>
      <<<grid_size(num_groups * ((num_elements + 3) / 4)), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
          args.latents.const_data_ptr<T>(), args.streams.const_data_ptr<int64_t>(),
          args.signal_scale.const_data_ptr<float>(), args.noise_scale.const_data_ptr<float>(),
          args.noisy_latents.mutable_data_ptr<T>(), args.target.mutable_data_ptr<float>(), args.seed, args.type,
          num_groups, k, num_elements);
  check_launch("noise_and_target");
}

}  // namespace

void noise_and_target_cuda(const NoiseAndTargetArgs& args) {
  switch (args.latents.scalar_type()) {
    case at::kBFloat16: return launch<at::BFloat16>(args);
    case at::kHalf: return launch<at::Half>(args);
    default: return launch<float>(args);
  }
}

void group_noise_cuda(const at::Tensor& streams, uint64_t seed, at::Tensor& noise) {
  const int64_t num_elements = noise.size(2);
  const c10::cuda::CUDAGuard device(noise.device());
  group_noise_kernel<<<grid_size(noise.size(0) * ((num_elements + 3) / 4)), kThreads, 0,
                       c10::cuda::getCurrentCUDAStream()>>>(streams.const_data_ptr<int64_t>(),
                                                            noise.mutable_data_ptr<float>(), seed, noise.size(0),
                                                            noise.size(1), num_elements);
  check_launch("group_noise");
}

}  // namespace prefusion::kernels::detail

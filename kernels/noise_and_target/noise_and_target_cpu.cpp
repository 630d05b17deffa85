#include <ATen/ATen.h>

#include <algorithm>

#include "core/philox.h"
#include "kernels/noise_and_target/noise_and_target.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

// Blocks of four normals a thread takes at once: some tens of microseconds of work.
constexpr int64_t kGrainBlocks = 512;

// The target of one element from its clean latent x and noise n, with a = signal_scale and s = noise_scale.
template <PredictionType type>
float target_value(float x, float n, float a, float s) {
  if constexpr (type == PredictionType::kEpsilon) return n;
  if constexpr (type == PredictionType::kVPrediction) return a * n - s * x;
  if constexpr (type == PredictionType::kSample) return x;
  if constexpr (type == PredictionType::kFlow) return n - x;
}

// Calls visit(group, first element, count, normals) for every Philox block of every group, in parallel.
template <typename Visit>
void for_each_block(const int64_t* streams, uint64_t seed, int64_t num_groups, int64_t num_elements, Visit visit) {
  const int64_t blocks = (num_elements + 3) / 4;
  parallel_for(num_groups * blocks, kGrainBlocks, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t group = index / blocks;
      const int64_t block = index % blocks;
      const Normal4 normal = philox_normal4(seed, static_cast<uint64_t>(streams[group]), static_cast<uint64_t>(block));
      const float lanes[4] = {normal.x, normal.y, normal.z, normal.w};
      visit(group, block * 4, std::min<int64_t>(4, num_elements - block * 4), lanes);
    }
  });
}

template <typename T, PredictionType type>
void run(const NoiseAndTargetArgs& args) {
  const int64_t num_groups = args.latents.size(0);
  const int64_t k = args.latents.size(1);
  const int64_t num_elements = args.latents.numel() / (num_groups * k);  // C*H*W
  const T* latents = args.latents.const_data_ptr<T>();
  const float* signal_scale = args.signal_scale.const_data_ptr<float>();
  const float* noise_scale = args.noise_scale.const_data_ptr<float>();
  T* noisy_latents = args.noisy_latents.mutable_data_ptr<T>();
  float* target = args.target.mutable_data_ptr<float>();
  for_each_block(args.streams.const_data_ptr<int64_t>(), args.seed, num_groups, num_elements,
                 [=](int64_t group, int64_t first, int64_t count, const float* noise) {
                   for (int64_t item = group * k; item < (group + 1) * k; ++item) {
                     const float a = signal_scale[item];
                     const float s = noise_scale[item];
                     const int64_t offset = item * num_elements + first;
                     for (int64_t lane = 0; lane < count; ++lane) {
                       const float x = static_cast<float>(latents[offset + lane]);
                       noisy_latents[offset + lane] = static_cast<T>(a * x + s * noise[lane]);
                       target[offset + lane] = target_value<type>(x, noise[lane], a, s);
                     }
                   }
                 });
}

template <typename T>
void run_for_type(const NoiseAndTargetArgs& args) {
  switch (args.type) {
    case PredictionType::kEpsilon: return run<T, PredictionType::kEpsilon>(args);
    case PredictionType::kVPrediction: return run<T, PredictionType::kVPrediction>(args);
    case PredictionType::kSample: return run<T, PredictionType::kSample>(args);
    case PredictionType::kFlow: return run<T, PredictionType::kFlow>(args);
  }
}

}  // namespace

void noise_and_target_cpu(const NoiseAndTargetArgs& args) {
  switch (args.latents.scalar_type()) {
    case at::kBFloat16: return run_for_type<at::BFloat16>(args);
    case at::kHalf: return run_for_type<at::Half>(args);
    default: return run_for_type<float>(args);
  }
}

void group_noise_cpu(const at::Tensor& streams, uint64_t seed, at::Tensor& noise) {
  const int64_t k = noise.size(1);
  const int64_t num_elements = noise.size(2);
  float* out = noise.mutable_data_ptr<float>();
  for_each_block(streams.const_data_ptr<int64_t>(), seed, noise.size(0), num_elements,
                 [=](int64_t group, int64_t first, int64_t count, const float* lanes) {
                   for (int64_t item = group * k; item < (group + 1) * k; ++item) {
                     std::copy_n(lanes, count, out + item * num_elements + first);
                   }
                 });
}

}  // namespace prefusion::kernels::detail

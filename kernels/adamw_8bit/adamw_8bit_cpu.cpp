#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw_element.h"
#include "kernels/adamw_8bit/adamw_8bit.h"
#include "kernels/adamw_8bit/byte_moment.h"
#include "kernels/cpu_vector.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

template <typename T>
struct Block {
  T* parameter;  // or null
  float* master;
  const T* gradient;
  uint8_t *codes1, *codes2;
  float *scale1, *scale2;
  int64_t count;
};

struct Tables {
  const float *table1, *middles1, *table2, *middles2;
};

PREFUSION_INLINE void read_moment(const uint8_t* __restrict__ codes, const float* __restrict__ table, float scale,
                                  float* __restrict__ to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = table[codes[i]] * scale;
}

PREFUSION_INLINE void move(float* __restrict__ master, const float* __restrict__ gradients, float* __restrict__ exp_avg,
                           float* __restrict__ exp_avg_sq, const AdamWFactors& factors, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    master[i] = adamw_element(master[i], gradients[i], exp_avg[i], exp_avg_sq[i], factors);
  }
}

PREFUSION_INLINE float largest(const float* values, int64_t count) {
  float maximum = 0;
  for (int64_t i = 0; i < count; ++i) maximum = larger(maximum, values[i]);
  return maximum;
}

template <bool kIsSigned>
PREFUSION_INLINE void write_moment(const float* __restrict__ values, const float* __restrict__ middles, float scale,
                                   uint8_t* __restrict__ codes, int64_t count) {
  const float divisor = divisor_of(scale);
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = kIsSigned ? signed_code(middles, values[i], divisor) : positive_code(middles, values[i], divisor);
  }
}

template <typename T>
PREFUSION_INLINE void step_block(const Block<T>& block, const Tables& tables, const AdamWFactors& factors) {
  float gradients[kByteBlock], exp_avg[kByteBlock], exp_avg_sq[kByteBlock];
  for (int64_t i = 0; i < block.count; ++i) gradients[i] = static_cast<float>(block.gradient[i]);
  read_moment(block.codes1, tables.table1, *block.scale1, exp_avg, block.count);
  read_moment(block.codes2, tables.table2, *block.scale2, exp_avg_sq, block.count);
  move(block.master, gradients, exp_avg, exp_avg_sq, factors, block.count);
  *block.scale1 = largest(exp_avg, block.count);
  *block.scale2 = largest(exp_avg_sq, block.count);
  write_moment<true>(exp_avg, tables.middles1, *block.scale1, block.codes1, block.count);
  write_moment<false>(exp_avg_sq, tables.middles2, *block.scale2, block.codes2, block.count);
  if (block.parameter == nullptr) return;
  for (int64_t i = 0; i < block.count; ++i) block.parameter[i] = static_cast<T>(block.master[i]);
}

template <typename T>
struct StepBlock {
  static void plain(const Block<T>& b, const Tables& t, const AdamWFactors& f) { step_block(b, t, f); }
  PREFUSION_AVX2 static void avx2(const Block<T>& b, const Tables& t, const AdamWFactors& f) { step_block(b, t, f); }
  PREFUSION_AVX512 static void avx512(const Block<T>& b, const Tables& t, const AdamWFactors& f) {
    step_block(b, t, f);
  }
};

template <typename T>
void step(const AdamW8bitArgs& args) {
  const GatePointers gate = gate_pointers(args.gate);
  if (gate.is_shut()) return;
  const AdamWFactors factors =
      adamw_factors(adamw_constants(args.settings), gate.gradient_factor(), *args.count.const_data_ptr<float>());
  const Tables tables{args.exp_avg.table.const_data_ptr<float>(), args.exp_avg.middles.const_data_ptr<float>(),
                      args.exp_avg_sq.table.const_data_ptr<float>(), args.exp_avg_sq.middles.const_data_ptr<float>()};
  T* parameter = args.parameter.defined() ? args.parameter.mutable_data_ptr<T>() : nullptr;
  float* master = args.master.mutable_data_ptr<float>();
  const T* gradient = args.gradient.const_data_ptr<T>();
  uint8_t *codes1 = args.exp_avg.codes.mutable_data_ptr<uint8_t>(),
          *codes2 = args.exp_avg_sq.codes.mutable_data_ptr<uint8_t>();
  float *scales1 = args.exp_avg.scales.mutable_data_ptr<float>(),
        *scales2 = args.exp_avg_sq.scales.mutable_data_ptr<float>();
  const int64_t length = args.master.numel();
  const auto run = fastest(StepBlock<T>::plain, StepBlock<T>::avx2, StepBlock<T>::avx512);
  constexpr int64_t kGrain = 32;  // blocks that are worth a thread
  parallel_for(args.exp_avg.scales.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index * kByteBlock;
      run({.parameter = parameter == nullptr ? nullptr : parameter + first,
           .master = master + first,
           .gradient = gradient + first,
           .codes1 = codes1 + first,
           .codes2 = codes2 + first,
           .scale1 = scales1 + index,
           .scale2 = scales2 + index,
           .count = std::min(kByteBlock, length - first)},
          tables, factors);
    }
  });
}

}  // namespace

void adamw_8bit_step_cpu(const AdamW8bitArgs& args) {
  switch (args.gradient.scalar_type()) {
    case at::kBFloat16: return step<at::BFloat16>(args);
    case at::kHalf: return step<at::Half>(args);
    default: return step<float>(args);
  }
}

}  // namespace prefusion::kernels::detail

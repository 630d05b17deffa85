#include <ATen/core/Tensor.h>
#include <ATen/ops/item.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>

#include "kernels/adamw/adamw.h"
#include "kernels/adamw/adamw_element.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

// Elements that are converted to fp32 and back at a time, so that the loop between is of fp32 alone and vectorises.
constexpr int64_t kBlock = 256;

template <typename T>
void step_range(const AdamWArgs& args, const AdamWFactors& factors, int64_t begin, int64_t end) {
  T* parameter = args.parameter.mutable_data_ptr<T>();
  const T* gradient = args.gradient.const_data_ptr<T>();
  float* __restrict__ master = args.master.mutable_data_ptr<float>();
  float* __restrict__ exp_avg = args.exp_avg.mutable_data_ptr<float>();
  float* __restrict__ exp_avg_sq = args.exp_avg_sq.mutable_data_ptr<float>();
  float gradients[kBlock];
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = std::min(kBlock, end - first);
    for (int64_t i = 0; i < count; ++i) gradients[i] = static_cast<float>(gradient[first + i]);
    for (int64_t i = 0; i < count; ++i) {
      master[first + i] =
          adamw_element(master[first + i], gradients[i], exp_avg[first + i], exp_avg_sq[first + i], factors);
    }
    for (int64_t i = 0; i < count; ++i) parameter[first + i] = static_cast<T>(master[first + i]);
  }
}

}  // namespace

void adamw_step_cpu(const AdamWArgs& args) {
  const AdamWSettings& s = args.settings;
  const AdamWFactors factors = adamw_factors(s.lr, s.beta1, s.beta2, s.eps, s.weight_decay, args.count.item<double>());
  const bool is_bf16 = args.parameter.scalar_type() == at::kBFloat16;
  constexpr int64_t kGrain = 1 << 14;
  parallel_for(args.parameter.numel(), kGrain, [&](int64_t begin, int64_t end) {
    is_bf16 ? step_range<at::BFloat16>(args, factors, begin, end) : step_range<at::Half>(args, factors, begin, end);
  });
}

}  // namespace prefusion::kernels::detail

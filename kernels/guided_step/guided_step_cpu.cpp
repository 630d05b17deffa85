#include <ATen/ATen.h>

#include "kernels/cpu_vector.h"
#include "kernels/dispatch.h"
#include "kernels/guided_step/guided_step_args.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

template <typename T, typename Real>
struct Span {
  GuidedStepPackets<T, Real> whole;
  int64_t begin, end;
};

template <typename T, typename Real>
PREFUSION_INLINE void compute_span(const Span<T, Real>& span) {
  const GuidedStepPackets<T, Real>& whole = span.whole;
  const GuidedNumbers<Real> numbers = whole.numbers;
  const T* __restrict__ negative = whole.both;
  const T* __restrict__ positive = whole.both + whole.count;
  const T* __restrict__ sample = whole.sample;
  T* __restrict__ guided = whole.guided;
  T* __restrict__ next = whole.next;
  for (int64_t i = span.begin; i < span.end; ++i) {
    const Real along = numbers.guided(static_cast<Real>(negative[i]), static_cast<Real>(positive[i]));
    guided[i] = static_cast<T>(along);
    next[i] = static_cast<T>(numbers.next(static_cast<Real>(sample[i]), along));
  }
}

PREFUSION_VECTOR_STEP(ComputeSpan, compute_span, Span);

}  // namespace

void guided_step_cpu(GuidedStepTensors& tensors) {
  for_float_type(tensors.both.scalar_type(), [&](auto element, auto real) {
    using T = decltype(element);
    using Real = decltype(real);
    const auto whole = packets_of<T, Real>(tensors);
    const auto compute = ComputeSpan<T, Real>::best();
    parallel_for(whole.count, /*grain_size=*/1 << 15, [&](int64_t begin, int64_t end) {
      compute(Span<T, Real>{whole, begin, end});
    });
  });
}

}  // namespace prefusion::kernels::detail

#include "kernels/parallel_for.h"

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace prefusion::kernels {

void parallel_for(int64_t count, int64_t grain, c10::function_ref<void(int64_t begin, int64_t end)> body) {
  if (count <= 0) return;
  if (count <= grain || at::get_num_threads() == 1 || at::in_parallel_region()) return body(0, count);
  // A walk over bytes that nobody reads, one a grain: where it lies says which.
  const at::Tensor places = at::empty({(count + grain - 1) / grain}, at::kByte);
  const auto* first = places.const_data_ptr<uint8_t>();
  at::TensorIterator walk = at::TensorIterator::borrowing_nullary_op(places);
  walk.for_each(
      [&](char** data, const int64_t* strides, int64_t size, int64_t repeats) {
        for (int64_t i = 0; i < repeats; ++i) {
          const int64_t begin = reinterpret_cast<const uint8_t*>(data[0] + i * strides[1]) - first;
          body(begin * grain, std::min((begin + size) * grain, count));
        }
      },
      /*grain_size=*/1);
}

}  // namespace prefusion::kernels

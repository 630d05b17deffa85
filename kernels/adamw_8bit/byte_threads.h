#pragma once

#include "kernels/adamw/adamw_element.h"
#include "kernels/adamw_8bit/byte_moment.h"

// A step on the GPU, as plain arithmetic that tests run on the host: a block of 256 threads has a block of the moments,
// a thread an element. Between the two functions the threads find the largest absolute values of their moments.
namespace prefusion::kernels::detail {

// What a thread holds of its element; zeros behind the last one.
struct MovedElement {
  float exp_avg, exp_avg_sq;
};

template <typename T>
struct ByteThreads {
  T* parameter;  // or null
  float* master;
  const T* gradient;
  uint8_t *codes1, *codes2;
  float *scales1, *scales2;
  int64_t length;

  PREFUSION_HOST_DEVICE MovedElement move(int64_t block, int64_t element, const float* table1, const float* table2,
                                          const AdamWFactors& factors) const {
    if (element >= length) return {0, 0};
    MovedElement moved = {table1[codes1[element]] * scales1[block], table2[codes2[element]] * scales2[block]};
    const float weight =
        adamw_element(master[element], static_cast<float>(gradient[element]), moved.exp_avg, moved.exp_avg_sq, factors);
    master[element] = weight;
    if (parameter != nullptr) parameter[element] = static_cast<T>(weight);
    return moved;
  }

  // The scales are the largest of all threads; the first thread keeps them.
  PREFUSION_HOST_DEVICE void write(int64_t block, int64_t element, const MovedElement& moved, float scale1,
                                   float scale2, const float* middles1, const float* middles2, bool is_first) const {
    if (is_first) {
      scales1[block] = scale1;
      scales2[block] = scale2;
    }
    if (element >= length) return;
    codes1[element] = signed_code(middles1, moved.exp_avg, divisor_of(scale1));
    codes2[element] = positive_code(middles2, moved.exp_avg_sq, divisor_of(scale2));
  }
};

}  // namespace prefusion::kernels::detail

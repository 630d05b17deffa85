#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace prefusion::shapes {

struct SceneBatch {
  at::Tensor pixel_values;            // float [B, 3, 64, 64] in [-1, 1]
  std::vector<std::string> captions;  // B
};

// Batch number `step` of the endless training stream: item i depends on (seed, step, i) alone, so that a resumed run
// sees the batches it would have seen, and a smaller batch is the beginning of a larger one. No held-out caption
// occurs.
SceneBatch scene_batch(uint64_t seed, int64_t step, int64_t batch_size);

}  // namespace prefusion::shapes

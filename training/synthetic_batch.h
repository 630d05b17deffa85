#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "losses/objective.h"
#include "text/prompt_states.h"
#include "training/batch_source.h"

namespace prefusion::training {

// What one item of a batch is like.
struct ItemShape {
  std::vector<int64_t> latents;  // [C, h, w]
  text::PromptStates prompt;     // [1, ...]
  at::Tensor time_ids;           // [n], undefined where the model takes none
};

// B groups of k items of random latents under the same prompt, with what else the objective asks of a batch; for dry
// runs and benchmarks. The first item of each group is the best.
EncodedBatch synthetic_batch(const ItemShape& shape, int64_t batch_size, int64_t items_per_group,
                             const losses::ObjectiveInfo& needs, at::Device device);

}  // namespace prefusion::training

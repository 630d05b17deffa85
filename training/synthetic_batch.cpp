#include "training/synthetic_batch.h"

#include <ATen/ATen.h>

namespace prefusion::training {

EncodedBatch synthetic_batch(const ItemShape& shape, int64_t batch_size, int64_t items_per_group,
                             const losses::ObjectiveInfo& needs, at::Device device) {
  EncodedBatch batch;
  std::vector<int64_t> sizes = {batch_size, items_per_group};
  sizes.insert(sizes.end(), shape.latents.begin(), shape.latents.end());
  batch.mean = at::randn(sizes).to(device);
  batch.std = at::ones_like(batch.mean);
  batch.prompts =
      shape.prompt.map([&](const at::Tensor& part) { return part.repeat_interleave(batch_size, 0).to(device); });
  if (shape.time_ids.defined()) {
    batch.time_ids = shape.time_ids.to(device).expand({batch_size, items_per_group, -1});
  }
  batch.labels = at::zeros({batch_size, items_per_group}).to(device);
  batch.labels.select(1, 0).fill_(1);
  batch.is_caption_dropped = at::zeros({batch_size}, at::kBool).to(device);
  if (needs.needs_scores) batch.scores = batch.labels;
  if (needs.needs_mask) batch.masks = at::ones_like(batch.mean.narrow(2, 0, 1));
  if (needs.needs_item_prompts) {
    batch.item_prompts = batch.prompts.map(
        [&](const at::Tensor& part) { return at::stack(std::vector<at::Tensor>(items_per_group, part), 1); });
    batch.item_prompt_texts.resize(static_cast<size_t>(batch_size * items_per_group));
  }
  for (int64_t i = 0; i < batch_size; ++i) batch.groups.push_back({i, 0});
  batch.prompt_texts.resize(static_cast<size_t>(batch_size));
  batch.users.resize(static_cast<size_t>(batch_size));
  return batch;
}

}  // namespace prefusion::training

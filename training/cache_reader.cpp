#include "training/cache_reader.h"

#include <ATen/ATen.h>

#include "core/device.h"
#include "core/error.h"

namespace prefusion::training {

EncodedBatch CacheReader::read(const std::vector<CachedRequest>& groups, double empty_prompt_rate) const {
  std::vector<DrawnFacts> drawn;
  for (const auto& [request, group] : groups) drawn.push_back({{request.index, request.draw}, &group->facts});
  const auto items = static_cast<int64_t>(groups.front().second->pictures.size());
  EncodedBatch batch = start_batch(drawn, items, seed_, empty_prompt_rate, device_);
  const at::Tensor is_dropped = batch.is_caption_dropped.cpu();
  std::vector<at::Tensor> means, stds, masks, time_ids;
  std::vector<text::PromptStates> texts, item_texts;
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& [request, group] = groups[i];
    const DrawKey key{seed_, static_cast<uint64_t>(request.index), request.draw};
    const bool is_flipped = data::decide_transform(transform_, key).is_flipped;
    const bool drops = is_dropped[static_cast<int64_t>(i)].item<bool>();
    for (const auto& keys : group->pictures) {
      const auto latents = cache_->find_latents(keys[is_flipped]);
      check_has(latents.has_value(), *group);
      means.push_back(latents->mean);
      stds.push_back(latents->std);
      if (uses_time_ids_) time_ids.push_back(find_time_ids(keys[is_flipped], *group));
    }
    texts.push_back(find_text(drops ? empty_prompt_ : group->text, *group));
    for (const auto& text : group->item_texts) item_texts.push_back(find_text(drops ? empty_prompt_ : text, *group));
    for (const auto& mask : group->masks) masks.push_back(find_mask(mask, is_flipped, *group));
  }
  // B * k tensors in order to [B, k, ...]
  const auto grouped = [&](const std::vector<at::Tensor>& tensors) {
    return tensors.empty() ? at::Tensor() : to_device(at::stack(tensors).unflatten(0, {-1, items}), device_);
  };
  batch.mean = grouped(means);
  batch.std = grouped(stds);
  batch.prompts = text::stack_states(texts).map([&](const at::Tensor& part) { return to_device(part, device_); });
  batch.item_prompts = text::stack_states(item_texts).map([&](const at::Tensor& part) {
    return to_device(part.unflatten(0, {-1, items}), device_);
  });
  batch.masks = grouped(masks);
  batch.time_ids = grouped(time_ids);
  return batch;
}

text::PromptStates CacheReader::find_text(const ContentHash& key, const CachedGroup& group) const {
  const auto text = cache_->find_text(key);
  check_has(text.has_value(), group);
  return *text;
}

at::Tensor CacheReader::find_time_ids(const ContentHash& latents_key, const CachedGroup& group) const {
  const auto ids = cache_->find_time_ids(data::time_ids_key(latents_key));
  check_has(ids.has_value(), group);
  return ids->to(time_ids_dtype_);
}

at::Tensor CacheReader::find_mask(const ContentHash& key, bool is_flipped, const CachedGroup& group) const {
  const auto mask = cache_->find_mask(key);
  check_has(mask.has_value(), group);
  return is_flipped ? mask->flip({2}) : *mask;
}

// Entries were there when the run began; what is missing now could not be read back.
void CacheReader::check_has(bool is_found, const CachedGroup& group) const {
  check_input(is_found, cache_->tensors().path().string(), ": the entry of ", group.facts.id,
              " is damaged; delete the file, it is made again");
}

}  // namespace prefusion::training

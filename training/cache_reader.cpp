#include "training/cache_reader.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::training {

EncodedBatch CacheReader::read(const std::vector<CachedRequest>& groups, double empty_prompt_rate) const {
  std::vector<DrawnFacts> drawn;
  for (const auto& [request, group] : groups) drawn.push_back({{request.index, request.draw}, &group->facts});
  const auto items = static_cast<int64_t>(groups.front().second->pictures.size());
  EncodedBatch batch = start_batch(drawn, items, seed_, empty_prompt_rate, device_);
  std::vector<at::Tensor> means, stds, texts;
  for (const auto& [request, group] : groups) {
    const DrawKey key{seed_, static_cast<uint64_t>(request.index), request.draw};
    const bool flipped = data::decide_transform(transform_, key).is_flipped;
    std::vector<at::Tensor> mean, std;
    for (const auto& keys : group->pictures) {
      const auto latents = cache_->find_latents(keys[flipped]);
      check_has(latents.has_value(), *group);
      mean.push_back(latents->mean);
      std.push_back(latents->std);
    }
    means.push_back(at::stack(mean));
    stds.push_back(at::stack(std));
    const auto text = cache_->find_text(drops_caption(empty_prompt_rate, key) ? empty_prompt_ : group->text);
    check_has(text.has_value(), *group);
    texts.push_back(text->encoder_hidden_states);
  }
  batch.mean = at::stack(means).to(device_);
  batch.std = at::stack(stds).to(device_);
  batch.encoder_hidden_states = at::stack(texts).to(device_);
  return batch;
}

// Entries were there when the run began; what is missing now could not be read back.
void CacheReader::check_has(bool is_found, const CachedGroup& group) const {
  check_input(is_found, cache_->tensors().path().string(), ": the entry of ", group.facts.id,
              " is damaged; delete the file, it is made again");
}

}  // namespace prefusion::training

#include "training/group_facts.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/device.h"
#include "training/group_encoder.h"

namespace prefusion::training {
namespace {

// [B, items_per_group] fp32; undefined where a group has no values.
at::Tensor item_values(const std::vector<DrawnFacts>& groups, std::vector<double> GroupFacts::*values,
                       int64_t items_per_group, at::Device device) {
  std::vector<double> all;
  for (const auto& [group, facts] : groups) {
    const std::vector<double>& own = facts->*values;
    if (own.empty()) return {};
    all.insert(all.end(), own.begin(), own.begin() + items_per_group);
  }
  return to_device(at::tensor(all, at::kFloat).view({-1, items_per_group}), device);
}

// [B] fp32; undefined where a group has none.
at::Tensor group_weights(const std::vector<DrawnFacts>& groups, at::Device device) {
  std::vector<double> weights;
  for (const auto& [group, facts] : groups) {
    if (!facts->weight) return {};
    weights.push_back(*facts->weight);
  }
  return to_device(at::tensor(weights, at::kFloat), device);
}

}  // namespace

GroupFacts facts_of(const data::LoadedGroup& group) {
  return {.id = group.id,
          .user = group.user,
          .prompt = group.prompt,
          .item_prompts = group.item_prompts,
          .labels = group.labels,
          .scores = group.scores,
          .weight = group.weight};
}

EncodedBatch start_batch(const std::vector<DrawnFacts>& groups, int64_t items_per_group, uint64_t seed,
                         double empty_prompt_rate, at::Device device) {
  EncodedBatch batch;
  batch.labels = item_values(groups, &GroupFacts::labels, items_per_group, device);
  batch.scores = item_values(groups, &GroupFacts::scores, items_per_group, device);
  batch.weights = group_weights(groups, device);
  std::vector<uint8_t> is_dropped;
  for (const auto& [group, facts] : groups) {
    const DrawKey key{seed, static_cast<uint64_t>(group.item), group.draw};
    const bool drops = drops_caption(empty_prompt_rate, key);
    is_dropped.push_back(drops);
    batch.prompt_texts.push_back(drops ? "" : facts->prompt);
    for (int64_t item = 0; item < items_per_group && !facts->item_prompts.empty(); ++item) {
      batch.item_prompt_texts.push_back(drops ? "" : facts->item_prompts[static_cast<size_t>(item)]);
    }
    batch.groups.push_back(group);
    batch.ids.push_back(facts->id);
    batch.users.push_back(facts->user);
  }
  batch.is_caption_dropped = to_device(at::tensor(is_dropped, at::kByte).to(at::kBool), device);
  return batch;
}

}  // namespace prefusion::training

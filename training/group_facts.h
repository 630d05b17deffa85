#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/pair_loader.h"
#include "training/batch_source.h"

namespace prefusion::training {

// What a batch says of a group besides its pictures and prompts.
struct GroupFacts {
  std::string id;
  std::string user;
  std::string prompt;
  std::vector<std::string> item_prompts;  // k, or none
  std::vector<double> labels;             // k
  std::vector<double> scores;             // k, empty where the data has none
  std::optional<double> weight;
};

GroupFacts facts_of(const data::LoadedGroup& group);

// A draw of a group.
struct DrawnFacts {
  GroupRef group;
  const GroupFacts* facts = nullptr;
};

// The batch of these draws with everything that needs no encoder: labels and scores of the first `items_per_group`
// items, weights, ids, users, and whose captions are dropped.
EncodedBatch start_batch(const std::vector<DrawnFacts>& groups, int64_t items_per_group, uint64_t seed,
                         double empty_prompt_rate, at::Device device);

}  // namespace prefusion::training

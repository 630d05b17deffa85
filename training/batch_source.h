#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "text/prompt_states.h"

namespace prefusion::training {

// Which record a group of a batch is, and which draw of it.
struct GroupRef {
  int64_t item = 0;   // index in the data set
  uint64_t draw = 0;  // the epoch it is used in, modulo --reference-draws
};

// What a run asks of its data beyond labelled pictures under a prompt.
struct DataNeeds {
  bool scores = false;        // every item has a reward score
  bool item_prompts = false;  // every item has a prompt of its own
  bool masks = false;         // every item has a mask
  bool users = false;         // every group has a user who judged it
};

// A batch of groups as the train step needs it: encoded pictures and prompts. Flip, crop and caption drop of each group
// have been decided by its (item, draw) already; the posterior is not yet sampled.
struct EncodedBatch {
  at::Tensor mean;                        // [B, k, C, h, w] fp32, unscaled posterior mean
  at::Tensor std;                         // [B, k, C, h, w] fp32
  text::PromptStates prompts;             // [B, ...]
  text::PromptStates item_prompts;        // [B, k, ...] where each item has a prompt of its own, else undefined
  std::vector<std::string> prompt_texts;  // B, what `prompts` are the states of: empty where the caption was dropped
  std::vector<std::string> item_prompt_texts;  // B * k, the same of item_prompts; none where these are undefined
  at::Tensor time_ids;            // [B, k, n] where the model is told of sizes (GroupEncoder::time_ids), else undefined
  at::Tensor masks;               // [B, k, 1, h, w] fp32 in [0, 1] or undefined: weights of the errors
  at::Tensor weights;             // [B] fp32 or undefined: factor of each group's loss
  at::Tensor is_caption_dropped;  // [B] bool: the draw trains on the empty prompt
  at::Tensor labels;              // [B, k] fp32 or undefined: human labels
  at::Tensor scores;              // [B, k] fp32 or undefined: reward scores
  std::vector<GroupRef> groups;   // B
  std::vector<std::string> ids;   // B, where each record comes from, for messages
  std::vector<std::string> users;  // B, who judged each group; empty names where the data was not asked for them
  int64_t next_position = 0;       // where the stream goes on after this batch

  int64_t size() const { return mean.size(0); }
  int64_t items_per_group() const { return mean.size(1); }
};

// An endless stream of batches in the run's fixed order.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual EncodedBatch next(int64_t batch_size) = 0;
};

}  // namespace prefusion::training

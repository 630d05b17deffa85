#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "reward_models/picture_tower.h"

namespace prefusion::reward_models {

// What became of a prompt's text.
struct PromptFacts {
  int64_t num_tokens = 0;     // that the model sees, begin and end tokens included
  int64_t num_truncated = 0;  // that it does not see, for the prompt is too long
};

// Scores how well a picture does under a prompt, in two halves: features of the picture from its tower, features of the
// prompt, and a cheap function of both. Scorer (scorer.h) batches, shares and remembers them.
class RewardModel {
 public:
  virtual ~RewardModel() = default;

  virtual const std::shared_ptr<PictureTower>& tower() const = 0;

  // Whether scores depend on the prompt at all.
  virtual bool uses_prompts() const { return true; }

  // Features of P >= 1 prompts: [P, ...], equal whichever prompts share the call, on the CPU to the bit; undefined
  // unless uses_prompts(). Input error for a prompt that is not UTF-8.
  virtual at::Tensor prompt_features(const std::vector<std::string>& prompts) = 0;
  // Names everything that prompt_features() depends on: models with equal keys share a prompt's features. Empty: no
  // other model's are equal.
  virtual std::string prompt_key() const { return {}; }
  virtual PromptFacts prompt_facts(const std::string& prompt) const { return {}; }
  // Usage or input error for a prompt under which no picture can be scored, so that it is known before any is made.
  virtual void check_prompt(const std::string& prompt) const { prompt_facts(prompt); }

  // fp32 [N] on the CPU: the scores of pictures under prompts, both [N, ...], row by row.
  virtual at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) = 0;
};

}  // namespace prefusion::reward_models

#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

#include "core/json_config.h"

namespace prefusion::reward_models {

// What a head is; the part "head" of a reward.json.
struct RewardHeadConfig {
  std::string kind = "cosine";  // cosine, mlp, aspects, pal
  int64_t width = 0;            // of CLIP's projected features
  int64_t hidden = 0;           // of the hidden layers of mlp and aspects; pal has `width`
  double dropout = 0;
  std::vector<std::string> columns;  // what a score is called; one, but for aspects: "overall" and the aspects
  // pal
  std::string form = "b";        // b: the ideal point follows the prompt; a: from learned prototypes
  std::string metric = "angle";  // or dist
  int64_t prototypes = 2;        // K
  std::vector<std::string> users;
};

Json to_json(const RewardHeadConfig& config);
// Input error naming the key for what is missing, unknown or out of range.
RewardHeadConfig parse_reward_head(const Json& json, const std::string& where);

// N items. Features are CLIP's, as projected and not normalised, in fp32.
struct HeadInputs {
  at::Tensor pictures;  // [N, width]
  at::Tensor prompts;   // [N, width]
  at::Tensor users;     // int64 [N], places in RewardHeadConfig::users, -1 for their mean; read by pal alone
};

// The part of a reward model behind CLIP's towers. Its named_parameters() are the tensors of head.safetensors.
class RewardHead : public torch::nn::Module {
 public:
  explicit RewardHead(RewardHeadConfig config) : config_(std::move(config)) {}
  // fp32 [N, columns], higher is better. Dropout acts in train() only, by torch's default generator.
  virtual at::Tensor forward(const HeadInputs& inputs) = 0;
  const RewardHeadConfig& config() const { return config_; }

 protected:
  RewardHeadConfig config_;
};

// exp(logit_scale) * cosine, as PickScore; `log_scale` is the CLIP's own parameter.
std::shared_ptr<RewardHead> make_cosine_head(const RewardHeadConfig& config, const at::Tensor& log_scale);

// The other heads, with weights drawn from `seed`.
//   mlp      two hidden GELU layers on (picture, prompt, picture * prompt), all of unit length
//   aspects  the same trunk; a column an aspect. "overall" is their mixture, weighted by a gate on the prompt (in the
//            manner of MJ-Video's experts, arXiv 2502.01719)
//   pal      ideal points of users (reward_models/pal_head.h)
std::shared_ptr<RewardHead> make_reward_head(const RewardHeadConfig& config, uint64_t seed);

// Rows of unit length; a zero row stays zero.
at::Tensor unit_rows(const at::Tensor& features);

}  // namespace prefusion::reward_models

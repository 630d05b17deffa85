#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "reward_models/clip_vision_model.h"
#include "reward_models/picture_preparation.h"
#include "reward_models/picture_tower.h"
#include "reward_models/registry.h"
#include "reward_models/reward_model.h"
#include "text/clip_text_model.h"

namespace prefusion::reward_models {

// From text to the token ids of a CLIP text model.
struct PromptTokens {
  std::vector<int64_t> ids;   // begin, tokens, end; truncated, not padded
  int64_t num_truncated = 0;  // tokens that were cut off
};
using PromptTokenizer = std::function<PromptTokens(const std::string&)>;

// CLIP's text tower with its tokenizer.
class ClipPromptEncoder {
 public:
  ClipPromptEncoder(PromptTokenizer tokenizer, std::shared_ptr<text::ClipTextModel> model, std::string key)
      : tokenizer_(std::move(tokenizer)), model_(std::move(model)), key_(std::move(key)) {}

  // Names everything that encode() depends on: weights, their dtype, tokenizer.
  const std::string& key() const { return key_; }

  // fp32 [P, projection_dim] of P >= 1 prompts, not normalised. A prompt gets the same features whatever else is in the
  // call: on a GPU because attention is causal, so that padding behind the end token does not matter; on the CPU, to
  // the bit, because each goes alone through every layer.
  at::Tensor encode(const std::vector<std::string>& prompts);

  PromptFacts facts(const std::string& prompt) const;
  const std::shared_ptr<text::ClipTextModel>& model() const { return model_; }
  const PromptTokenizer& tokenizer() const { return tokenizer_; }

 private:
  PromptTokenizer tokenizer_;
  std::shared_ptr<text::ClipTextModel> model_;
  std::string key_;
};

// A CLIP model whose halves are loaded when they are asked for.
struct ClipParts {
  std::function<std::shared_ptr<PictureTower>()> pictures;  // features fp32 [N, projection_dim], not normalised
  std::function<std::shared_ptr<ClipPromptEncoder>()> prompts;
  double logit_scale = 1;      // exp of the stored parameter
  int64_t projection_dim = 0;  // of the features
};

// A folder of transformers: config.json, model*.safetensors, tokenizer files, preprocessor_config.json. Input error
// when one is missing or does not fit.
ClipParts open_clip_folder(const std::filesystem::path& folder, const RewardContext& context);

// The halves of a whole CLIPModel's weights, without the positions that transformers before 4.31 stored.
TensorMap clip_picture_weights(const TensorMap& weights);
TensorMap clip_text_weights(const TensorMap& weights);

// The parameter logit_scale among a whole CLIPModel's weights as it is stored, a logarithm, and exp of it. Input error
// when it is missing.
double stored_logit_scale(const TensorMap& weights, const std::string& where);
double clip_logit_scale(const TensorMap& weights, const std::string& where);

// The tokenizer in `folder`, for a text model of `max_length` positions.
PromptTokenizer clip_folder_tokenizer(const std::filesystem::path& folder, int64_t max_length);

// int64 [P, L]: begin, tokens, end, filled up with the end token.
at::Tensor token_ids(const PromptTokenizer& tokenizer, const std::vector<std::string>& prompts);

// CLIP's picture tower as a PictureTower.
std::shared_ptr<PictureTower> make_clip_tower(std::shared_ptr<ClipVisionModel> model,
                                              const PicturePreparation& preparation, const std::string& key);

// fp32 cosines of rows, [N]: both sides are normalised in fp32 first, whatever dtype they came in.
at::Tensor cosines(const at::Tensor& picture_features, const at::Tensor& prompt_features);

}  // namespace prefusion::reward_models

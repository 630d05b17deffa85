#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <filesystem>
#include <memory>
#include <string>

#include "core/json_config.h"
#include "nn/clip_encoder.h"
#include "nn/layers.h"
#include "reward_models/picture_tower.h"
#include "reward_models/registry.h"

namespace prefusion::reward_models {

// The picture half of a SigLIP config.json; names and defaults are those of transformers' SiglipVisionConfig.
struct SiglipVisionConfig {
  int64_t hidden_size = 768;
  int64_t intermediate_size = 3072;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t num_channels = 3;
  int64_t image_size = 224;
  int64_t patch_size = 16;
  std::string hidden_act = "gelu_pytorch_tanh";
  double layer_norm_eps = 1e-6;
};

// Parses the config.json of a whole SiglipModel (its `vision_config`) or of SiglipVisionModel. Input error naming the
// key for what is not supported.
SiglipVisionConfig parse_siglip_vision_config(const Json& json, const std::string& where);

class SiglipEmbeddingsImpl;
class SiglipPoolingHeadImpl;

// SigLIP's picture encoder (arXiv 2303.15343) as transformers' SiglipVisionModel computes it: no class token, an
// attention head pools the patches. Checkpoint keys are its named_parameters(), "vision_model." in front or not.
class SiglipVisionModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them.
  SiglipVisionModel(const SiglipVisionConfig& config, const std::string& where);

  // pixel_values [N, 3, image_size, image_size] -> [N, hidden_size], the pooled output. Usage error for other sizes.
  at::Tensor forward(const at::Tensor& pixel_values);

  const SiglipVisionConfig& config() const { return config_; }

 private:
  SiglipVisionConfig config_;
  std::shared_ptr<SiglipEmbeddingsImpl> embeddings;
  std::shared_ptr<nn::ClipEncoderImpl> encoder;
  nn::LayerNorm post_layernorm{nullptr};
  std::shared_ptr<SiglipPoolingHeadImpl> head;
};

// Whether a folder's config.json is that of a SigLIP.
bool is_siglip(const std::filesystem::path& folder);

// The picture tower of a transformers folder: features are the pooled output, fp32 [N, hidden_size]. Input error when a
// file is missing or does not fit.
std::shared_ptr<PictureTower> load_siglip_tower(const std::filesystem::path& folder, const RewardContext& context);

}  // namespace prefusion::reward_models

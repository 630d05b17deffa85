#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "core/safetensors.h"
#include "nn/layers.h"
#include "nn/module_list.h"

namespace prefusion::reward_models {

struct BlipVisionConfig {
  int64_t width = 1024;
  int64_t depth = 24;
  int64_t num_heads = 16;
  int64_t mlp_width = 4096;
  int64_t patch_size = 16;
  int64_t image_size = 224;
};

// The config behind the weights of a tower, which come without one: all from shapes but the number of heads, 64
// channels each as in BLIP's towers unless `num_heads` says otherwise (0: nothing said). Input error when the weights
// are no such tower, usage error when the width does not divide into heads.
BlipVisionConfig blip_vision_config_of(const TensorMap& weights, int64_t num_heads, const std::string& where);

class BlipVisionBlockImpl;

// BLIP's picture encoder (arXiv 2201.12086): the vision transformer of timm with its last norm and all its tokens.
// Checkpoint keys are its named_parameters(): "cls_token", "blocks.0.attn.qkv.weight" ...
class BlipVisionModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them.
  explicit BlipVisionModel(const BlipVisionConfig& config);

  // pixel_values [N, 3, image_size, image_size] -> [N, 1 + patches, width]
  at::Tensor forward(const at::Tensor& pixel_values);

  const BlipVisionConfig& config() const { return config_; }

 private:
  class PatchEmbedImpl;
  using Blocks = nn::ModuleList<std::shared_ptr<BlipVisionBlockImpl>>;

  BlipVisionConfig config_;
  at::Tensor cls_token;  // [1, 1, width]
  at::Tensor pos_embed;  // [1, 1 + patches, width]
  std::shared_ptr<PatchEmbedImpl> patch_embed;
  std::shared_ptr<Blocks> blocks;
  nn::LayerNorm norm{nullptr};
};

}  // namespace prefusion::reward_models

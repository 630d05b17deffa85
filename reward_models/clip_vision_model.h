#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "core/json_config.h"
#include "nn/layers.h"

namespace prefusion::reward_models {

// The picture half of a CLIP config.json; names and defaults are those of transformers' CLIPVisionConfig.
struct ClipVisionConfig {
  int64_t hidden_size = 768;
  int64_t intermediate_size = 3072;
  int64_t projection_dim = 512;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t num_channels = 3;
  int64_t image_size = 224;
  int64_t patch_size = 32;
  std::string hidden_act = "quick_gelu";
  double layer_norm_eps = 1e-5;
};

// Parses the config.json of a whole CLIPModel (its `vision_config`), or of CLIPVisionModelWithProjection. Input error
// naming the key for what is not supported.
ClipVisionConfig parse_clip_vision_config(const Json& json, const std::string& where);

// Input error naming what is out of range or does not fit together.
void check_clip_vision_config(const ClipVisionConfig& config, const std::string& where);

class ClipVisionTransformerImpl;

// CLIP's picture encoder (arXiv 2103.00020) as transformers' CLIPVisionModelWithProjection computes it. Checkpoint keys
// are its named_parameters(): "vision_model.encoder.layers.0...", "visual_projection.weight".
class ClipVisionModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them.
  ClipVisionModel(const ClipVisionConfig& config, const std::string& where);

  // pixel_values [N, 3, image_size, image_size] -> [N, 1 + patches, D]: all tokens before the last layer norm.
  at::Tensor hidden_states(const at::Tensor& pixel_values);

  // pixel_values [N, 3, image_size, image_size] -> [N, D]: the class token after the last layer norm.
  at::Tensor pooled(const at::Tensor& pixel_values);
  // The projection alone: [..., D] -> [..., projection_dim], not normalised.
  at::Tensor project(const at::Tensor& hidden_states) { return visual_projection(hidden_states); }
  // Both. Usage error for pictures of another size.
  at::Tensor forward(const at::Tensor& pixel_values) { return project(pooled(pixel_values)); }

  const ClipVisionConfig& config() const { return config_; }

 private:
  at::Tensor embed(const at::Tensor& pixel_values);  // [N, 1 + patches, D], what the encoder is given

  ClipVisionConfig config_;
  std::shared_ptr<ClipVisionTransformerImpl> vision_model;
  nn::Linear visual_projection{nullptr};
};

}  // namespace prefusion::reward_models

#pragma once

#include <string>

#include "core/json_config.h"
#include "reward_models/clip_vision_model.h"
#include "reward_models/picture_preparation.h"
#include "text/clip_text_config.h"

namespace prefusion::reward_models {

// What an open_clip_config.json says, in the terms of transformers' CLIP, which computes the same.
struct OpenClipConfig {
  ClipVisionConfig vision;
  text::ClipTextConfig text;
  PicturePreparation preparation;  // recipe kPillow
};

// `json` is an open_clip_config.json (model_cfg and preprocess_cfg) or a model_cfg alone. Input error naming the key
// for what is not supported: towers of timm and Hugging Face, ResNets, other pooling, changed blocks.
OpenClipConfig parse_open_clip_config(const Json& json, const std::string& where);

// The public architecture of that name ("ViT-H-14", "ViT-B-32-quickgelu"), for weights without a config. Usage error,
// naming those there are, for another.
OpenClipConfig open_clip_architecture(const std::string& name);

}  // namespace prefusion::reward_models

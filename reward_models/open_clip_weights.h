#pragma once

#include <filesystem>
#include <string>

#include "core/safetensors.h"

namespace prefusion::reward_models {

// The weights of a CLIP by the names of transformers.
struct ClipWeights {
  TensorMap pictures;  // "vision_model....", "visual_projection.weight"
  TensorMap prompts;   // "text_model....", "text_projection.weight"
  TensorMap rest;      // "logit_scale" and what neither tower has
};

// From names of open_clip and OpenAI ("visual.transformer.resblocks.0.attn.in_proj_weight") or of transformers. Input
// error for a weight whose shape cannot be split.
ClipWeights clip_weights(const TensorMap& weights, const std::string& where);

// The file with the weights in a folder of open_clip: open_clip_model.safetensors, open_clip_pytorch_model.bin, ...,
// or the only other .safetensors, .pt, .pth or .bin there. Input error when there is none, or more than one.
std::filesystem::path find_open_clip_weights(const std::filesystem::path& folder);

}  // namespace prefusion::reward_models

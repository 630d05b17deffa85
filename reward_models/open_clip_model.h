#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "reward_models/clip_model.h"
#include "reward_models/open_clip_config.h"

namespace prefusion::reward_models {

// How to read an open_clip model where its files leave it open.
struct OpenClipOptions {
  std::string kind;                         // of the reward, for log lines and messages
  std::string architecture;                 // instead of what an open_clip_config.json says
  std::string default_architecture;         // where neither is there; empty: it must be given
  std::filesystem::path tokenizer;          // folder or file; empty: beside the weights, or the embedded merges
  std::optional<PreparationRecipe> recipe;  // instead of open_clip's own transform
  bool antialias = true;                    // of PreparationRecipe::kTensor
};

// Whether `path` is a file of weights, or a folder that only open_clip can have made.
bool is_open_clip(const std::filesystem::path& path);

// A CLIP of open_clip or OpenAI: a folder with open_clip_config.json and weights, or a single file (.safetensors, .pt,
// .pth, .bin; TorchScript too), whose config may lie beside it. Tokens follow open_clip's rules. Logs what was loaded.
ClipParts load_open_clip(const std::filesystem::path& path, const OpenClipOptions& options,
                         const RewardContext& context);

}  // namespace prefusion::reward_models

#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "core/weights.h"
#include "reward_models/clip_model.h"

namespace prefusion::reward_models {

// A whole CLIP with everything that belongs to it, for training; open_clip_folder is for scoring.
struct ClipNetwork {
  std::shared_ptr<ClipVisionModel> vision;
  std::shared_ptr<text::ClipTextModel> text;
  at::Tensor log_scale;  // 0-dim fp32: the parameter logit_scale
  PromptTokenizer tokenizer;
  PicturePreparation preparation;

  // All weights by the names transformers' CLIPModel gives them.
  std::vector<NamedTensor> tensors() const;
};

// From a transformers folder. Input error when a file is missing or does not fit.
ClipNetwork load_clip_network(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device);

// A new one in fp32 from a folder with everything but weights: config.json, tokenizer files and, where they are not
// CLIP's defaults, preprocessor_config.json. PyTorch's initialisation of the layers from `seed`; logit_scale as the
// config's logit_scale_init_value.
ClipNetwork make_clip_network(const std::filesystem::path& folder, uint64_t seed, at::Device device);

// Copies what a folder holds beside its weights: configs, tokenizer and preprocessor files.
void copy_clip_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace prefusion::reward_models

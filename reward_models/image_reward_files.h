#pragma once

#include <torch/nn/module.h>

#include <filesystem>
#include <string>

#include "core/safetensors.h"
#include "reward_models/affine_head.h"
#include "text/bert_model.h"

namespace prefusion::reward_models {

// What an ImageReward folder holds.
struct ImageRewardFiles {
  TensorMap weights;  // under the public names: "blip.visual_encoder...", "blip.text_encoder...", "mlp.layers..."
  text::BertConfig text;
  std::filesystem::path tokenizer_folder;
  std::string where;  // of the weights

  // The weights below a prefix, without it.
  TensorMap part(const std::string& prefix) const;

  // Points the parameters of `blip` at the weights below "blip." and returns the head. Input error that names
  // everything missing, unexpected or of another shape at once; BLIP's pretraining projections and the stored positions
  // are not needed.
  AffineHead load(torch::nn::Module& blip, at::ScalarType dtype, at::Device device) const;
};

// `path` is the folder, or the file of the weights inside it; the tokenizer is in the same folder unless
// `tokenizer_folder` is given. Input error saying what is missing and where it comes from.
ImageRewardFiles read_image_reward_files(const std::filesystem::path& path,
                                         const std::filesystem::path& tokenizer_folder);

}  // namespace prefusion::reward_models

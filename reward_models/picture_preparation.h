#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "images/picture.h"
#include "images/pillow_resize.h"

namespace prefusion::reward_models {

// In which order a picture is converted, resized and cut; the public implementations differ, and so do their scores.
enum class PreparationRecipe {
  // transformers' CLIPImageProcessorPil, with which PickScore was trained: transparency onto white and RGB, Pillow's
  // resize, crop corner rounded down.
  kTransformers,
  // openai/CLIP, open_clip, ImageReward: Pillow's resize in the picture's own mode, crop corner rounded half to even,
  // RGB after it with transparency dropped.
  kPillow,
  // The hpsv2 package: RGB, floats, torch's resize with or without antialias, crop corner rounded half to even.
  kTensor,
};

struct PicturePreparation {
  PreparationRecipe recipe = PreparationRecipe::kTransformers;
  bool converts_to_rgb = true;
  bool resizes = true;
  int64_t shortest_edge = 224;  // 0: resize to exactly resize_height x resize_width
  int64_t resize_height = 0;
  int64_t resize_width = 0;
  images::ResizeFilter filter = images::ResizeFilter::kBicubic;
  bool antialias = true;  // of kTensor
  bool crops = true;
  int64_t crop_height = 224;
  int64_t crop_width = 224;
  double rescale_factor = 1.0 / 255;  // 0: none
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};

  // Text that tells preparations apart.
  std::string key() const;
};

// What the preprocessor_config.json of a transformers folder says (also the one inside processor_config.json); CLIP's
// defaults where there is none. Input error naming a setting that is not supported.
PicturePreparation read_picture_preparation(const std::filesystem::path& folder);

// fp32 [3, H, W] on the CPU.
at::Tensor prepare_picture(const images::Picture& picture, const PicturePreparation& preparation);

}  // namespace prefusion::reward_models

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/json_config.h"
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
  // The hpsv2 package: RGB with transparency dropped, floats, torch's resize with or without antialias, crop corner
  // rounded half to even. (The package itself fails on pictures with an alpha channel.)
  kTensor,
};

struct PictureSize {
  int64_t height = 0;
  int64_t width = 0;
};

struct PicturePreparation {
  PreparationRecipe recipe = PreparationRecipe::kTransformers;
  bool applies_orientation = false;  // no public implementation does
  bool converts_to_rgb = true;       // of kTransformers; without it other pictures are refused
  bool resizes = true;
  int64_t shortest_edge = 224;  // 0: see max_height
  int64_t longest_edge = 0;     // bound on the longer side beside shortest_edge; 0: none
  int64_t max_height = 0;       // the largest size of the picture's shape in max_height x max_width; 0: see below
  int64_t max_width = 0;
  int64_t resize_height = 0;  // exactly this
  int64_t resize_width = 0;
  images::ResizeFilter filter = images::ResizeFilter::kBicubic;
  bool antialias = true;  // of kTensor
  bool crops = true;      // around the middle; what is smaller is surrounded by zeros
  int64_t crop_height = 224;
  int64_t crop_width = 224;
  double rescale_factor = 1.0 / 255;  // of kTransformers; 0: none
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};
  int64_t pad_height = 0;  // zeros on the right and below after normalisation; 0: none
  int64_t pad_width = 0;

  // Text that tells preparations apart.
  std::string key() const;

  // The size that every picture comes out in; zeros where it depends on the picture.
  PictureSize output_size() const;
};

// What the preprocessor settings of a transformers folder say: processor_config.json where it has an `image_processor`,
// else preprocessor_config.json, else CLIP's defaults with pictures of `image_size`. Input error naming a setting that
// is not supported.
PicturePreparation read_picture_preparation(const std::filesystem::path& folder, int64_t image_size = 224);

// The same of parsed settings; `where` names them in errors.
PicturePreparation parse_picture_preparation(const Json& settings, const std::string& where);

// fp32 [3, H, W] on the CPU. Input error for a picture that the recipe cannot take.
at::Tensor prepare_picture(const images::Picture& picture, const PicturePreparation& preparation);

}  // namespace prefusion::reward_models

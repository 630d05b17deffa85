#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>

#include "pipelines/text_to_image.h"

namespace prefusion::tools {

// The picture that sampling starts from, as the command line gives it.
struct StartPictureOptions {
  std::filesystem::path init_image;  // empty: from noise
  std::filesystem::path mask_image;  // empty: all of it changes
  std::optional<double> strength;    // 0.8; 1 with a mask

  bool has_mask() const { return !mask_image.empty(); }
  double strength_or_default() const { return strength.value_or(has_mask() ? 1.0 : 0.8); }
};

// Reads the files and puts them into `sampling`, with the size of the result where that is the picture's: without
// --height and --width the img2img pipelines of Stable Diffusion and SDXL in diffusers keep its size, rounded down to
// what the model can do; all others go to the model's own size. The picture is resized with Lanczos' filter, whatever
// its shape, as VaeImageProcessor does it. Usage and input errors name flag and file.
void apply_start_picture(const StartPictureOptions& options, const pipelines::TextToImage& pipeline,
                         pipelines::GenerateOptions& sampling);

}  // namespace prefusion::tools

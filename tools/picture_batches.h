#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "pipelines/text_to_image.h"

namespace prefusion::tools {

struct PictureBatchOptions {
  pipelines::GenerateOptions sampling;
  int64_t batch_size = 32;  // pictures at a time
};

// Generates a picture for every request and hands it over in order: its index, uint8 [H, W, 3] RGB.
void generate_in_batches(pipelines::TextToImage& pipeline, std::span<const pipelines::ImageRequest> requests,
                         const PictureBatchOptions& options,
                         const std::function<void(size_t index, const at::Tensor& image)>& take);

}  // namespace prefusion::tools

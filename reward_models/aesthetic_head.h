#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#include "core/safetensors.h"
#include "reward_models/affine_head.h"

namespace prefusion::reward_models {

// An aesthetic predictor's head: linear layers without anything between them, hence one affine map of the normalised
// features of a picture.
struct AestheticHead {
  AffineHead affine;

  // features [N, D] -> fp32 [N]: the map of features / |features|, computed in fp64 on the device of the features.
  at::Tensor score(const at::Tensor& features) const;
};

// Multiplies the layers of a head out, in fp64. Its weights are `weight` and `bias` (LAION's first predictor),
// `layers.N` with N = 0, 2, 4, 6, 7 (the second) or `layers.N` or `scoring_head.N` with N = 0, 2, 4, 6, 8 (v2.5).
// Input error for others, also for those that have activations between their layers.
AestheticHead fold_aesthetic_head(const TensorMap& weights, const std::string& where);

// Reads a head file, .safetensors or one of torch.save.
AestheticHead read_aesthetic_head(const std::filesystem::path& path);

}  // namespace prefusion::reward_models

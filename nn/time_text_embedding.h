#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/timestep_embedding.h"

namespace prefusion::nn {

// What modulates the blocks of SD3 and FLUX: the sum of two-layer networks on the timestep, on the pooled text states
// and, where the model is told one, on the guidance scale. Parameters timestep_embedder, text_embedder,
// guidance_embedder.
class TimeTextEmbeddingImpl : public torch::nn::Module {
 public:
  TimeTextEmbeddingImpl(int64_t dim, int64_t pooled_dim, bool has_guidance = false);

  // timesteps [B] in the training scale (0 to 1000), pooled [B, pooled_dim] in the dtype of the weights, guidance [B]
  // in the scale the model was trained with -> [B, dim].
  at::Tensor forward(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& guidance = {});

 private:
  TimestepEmbedding timestep_embedder{nullptr}, guidance_embedder{nullptr}, text_embedder{nullptr};
};
TORCH_MODULE(TimeTextEmbedding);

}  // namespace prefusion::nn

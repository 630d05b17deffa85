#pragma once

#include <memory>

#include "nn/ada_layer_norm.h"
#include "nn/layers.h"
#include "nn/module_list.h"
#include "nn/patch_embedding.h"
#include "nn/time_text_embedding.h"
#include "unet/denoiser.h"
#include "unet/sd3_block.h"
#include "unet/sd3_config.h"

namespace prefusion::unet {

// The transformer of Stable Diffusion 3 and 3.5, Medium and Large ("Scaling Rectified Flow Transformers for
// High-Resolution Image Synthesis", arXiv 2403.03206): predicts the flow, noise - latents, at timesteps in the training
// scale (sigma * 1000, any real number). Prompt tokens are all attended to, padding included, as in training:
// Conditioning::encoder_mask has no effect. Computes in the dtype of its weights.
class SD3Transformer2DModel : public Denoiser {
 public:
  explicit SD3Transformer2DModel(const SD3Config& config);

  // noisy_latents [B, C, H, W] with H and W multiples of the patch size, at most pos_embed_max_size patches each;
  // encoder_hidden_states [B, L, joint_attention_dim] and pooled [B, pooled_projection_dim]. Input error otherwise.
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override;
  const DenoiserInfo& info() const override { return info_; }
  void complete_weights(TensorMap& weights) const override;

 private:
  void check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const;

  SD3Config config_;
  DenoiserInfo info_;
  nn::PatchEmbedding pos_embed{nullptr};
  nn::TimeTextEmbedding time_text_embed{nullptr};
  nn::Linear context_embedder{nullptr};
  std::shared_ptr<nn::ModuleList<std::shared_ptr<SD3Block>>> transformer_blocks;
  nn::AdaLayerNormContinuous norm_out{nullptr};
  nn::Linear proj_out{nullptr};
};

}  // namespace prefusion::unet

#pragma once

#include <memory>

#include "nn/ada_layer_norm.h"
#include "nn/layers.h"
#include "nn/module_list.h"
#include "nn/time_text_embedding.h"
#include "unet/denoiser.h"
#include "unet/flux_blocks.h"
#include "unet/flux_config.h"

namespace prefusion::unet {

// The flow-matching transformer of FLUX.1 dev and schnell (Black Forest Labs, 2024; the public weights and code are the
// only description). Takes and gives latents: packing 2 x 2 pixels to a token, and the positions of tokens, are its own
// affair. All prompt tokens are attended to, padding too, as the models were trained: encoder_mask is not looked at.
// Computes in the dtype of its weights; timesteps and guidance are rounded to it as well, as diffusers' pipeline does.
class FluxTransformer2DModel : public Denoiser {
 public:
  explicit FluxTransformer2DModel(const FluxConfig& config);

  // noisy_latents [B, in_channels / 4, H, W] with even H and W; timesteps in the training scale, 0 to 1000. Needs
  // encoder_hidden_states [B, L, joint_attention_dim] and pooled [B, pooled_projection_dim], and guidance [B] exactly
  // where the config has guidance_embeds. Input error otherwise.
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override;
  const DenoiserInfo& info() const override { return info_; }

 private:
  void check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const;
  // [B, inner_dim]
  at::Tensor embed_conditions(const at::Tensor& timesteps, const Conditioning& conditioning);
  // Both streams joined, the prompt's tokens first: [B, L + N, inner_dim].
  at::Tensor run_blocks(FluxStreams streams, const at::Tensor& embedding, const nn::RotaryEmbedding& rotary);

  FluxConfig config_;
  DenoiserInfo info_;
  nn::TimeTextEmbedding time_text_embed{nullptr};
  nn::Linear context_embedder{nullptr}, x_embedder{nullptr}, proj_out{nullptr};
  std::shared_ptr<nn::ModuleList<FluxDoubleBlock>> transformer_blocks;
  std::shared_ptr<nn::ModuleList<FluxSingleBlock>> single_transformer_blocks;
  nn::AdaLayerNormContinuous norm_out{nullptr};
};

}  // namespace prefusion::unet

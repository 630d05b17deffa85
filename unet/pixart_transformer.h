#pragma once

#include <memory>

#include "core/safetensors.h"
#include "nn/layers.h"
#include "nn/module_list.h"
#include "nn/patch_embedding.h"
#include "nn/timestep_embedding.h"
#include "unet/denoiser.h"
#include "unet/pixart_config.h"
#include "unet/pixart_layers.h"

namespace prefusion::unet {

// The transformer of PixArt-alpha ("PixArt-alpha: Fast Training of Diffusion Transformer for Photorealistic
// Text-to-Image Synthesis", arXiv 2310.00426) and PixArt-Sigma (arXiv 2403.04692). Computes in the dtype of its
// weights.
class PixArtTransformer2DModel : public Denoiser, public nn::InitializesItself {
 public:
  explicit PixArtTransformer2DModel(const PixArtConfig& config);

  // noisy_latents [B, in_channels, H, W], H and W multiples of patch_size; all out_channels are given, the learnt
  // variance behind the noise. Needs encoder_hidden_states [B, L, text_dim]; those that encoder_mask, where there is
  // one, leaves out have 10000 taken off their scores, as in training. time_ids are [B, 3], height and width in pixels
  // and height / width, exactly where the config has use_additional_conditions. Input error otherwise.
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override;
  const DenoiserInfo& info() const override { return info_; }
  // Takes out the null caption of the training, caption_projection.y_embedding, which no prediction uses.
  void complete_weights(TensorMap& weights) const override;
  int64_t num_time_ids(int64_t /*pooled_width*/) const override { return config_.use_additional_conditions ? 3 : 0; }
  void init_own_weights(at::Generator generator) override;

 private:
  void check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const;

  PixArtConfig config_;
  DenoiserInfo info_;
  at::Tensor scale_shift_table;  // [2, D]: shift and scale before the output layer
  nn::PatchEmbedding pos_embed{nullptr};
  std::shared_ptr<nn::ModuleList<PixArtBlock>> transformer_blocks;
  nn::Linear proj_out{nullptr};
  AdaLayerNormSingle adaln_single{nullptr};
  nn::TimestepEmbedding caption_projection{nullptr};  // the same two layers, on text
};

}  // namespace prefusion::unet

#pragma once

#include <memory>

#include "nn/layers.h"
#include "nn/module_list.h"
#include "nn/patch_embedding.h"
#include "unet/denoiser.h"
#include "unet/dit_block.h"
#include "unet/dit_config.h"

namespace prefusion::unet {

// The class-conditional transformer of DiT ("Scalable Diffusion Models with Transformers", arXiv 2212.09748). Computes
// in the dtype of its weights.
class DiTTransformer2DModel : public Denoiser {
 public:
  explicit DiTTransformer2DModel(const DitConfig& config);

  // noisy_latents [B, in_channels, H, W], H and W multiples of patch_size; all out_channels are given, the learnt
  // variance behind the noise. encoder_hidden_states are classes, [B, 1, num_classes + 1] with a one for the class, the
  // last for none (text/class_label_encoder.h). Input error otherwise.
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override;
  const DenoiserInfo& info() const override { return info_; }

 private:
  void check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const;

  DitConfig config_;
  DenoiserInfo info_;
  nn::PatchEmbedding pos_embed{nullptr};
  std::shared_ptr<nn::ModuleList<DitBlock>> transformer_blocks;
  nn::Linear proj_out_1{nullptr};  // shift and scale before the output layer
  nn::Linear proj_out_2{nullptr};
};

}  // namespace prefusion::unet

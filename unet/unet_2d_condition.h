#pragma once

#include <memory>
#include <string>

#include "core/json_config.h"
#include "nn/layers.h"
#include "nn/module_list.h"
#include "nn/timestep_embedding.h"
#include "unet/denoiser.h"
#include "unet/unet_2d_blocks.h"
#include "unet/unet_config.h"

namespace prefusion::unet {

// The text-conditioned U-Net of Stable Diffusion 1, 2 and XL ("High-Resolution Image Synthesis with Latent Diffusion
// Models", arXiv 2112.10752; "SDXL", arXiv 2307.01952). Computes in the dtype of its weights.
class UNet2DConditionModel : public Denoiser {
 public:
  explicit UNet2DConditionModel(const UNetConfig& config);

  // Input error when the shapes do not fit the config, or `pooled` and `time_ids` are missing where they are needed.
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override;
  const DenoiserInfo& info() const override { return info_; }
  int64_t num_time_ids(int64_t pooled_width) const override;

 private:
  void check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const;
  // [B, time_embedding_dim]
  at::Tensor embed_time(const at::Tensor& timesteps, const Conditioning& conditioning, int64_t batch);

  UNetConfig config_;
  DenoiserInfo info_;
  nn::Conv2d conv_in{nullptr}, conv_out{nullptr};
  nn::TimestepEmbedding time_embedding{nullptr}, add_embedding{nullptr};
  std::shared_ptr<nn::ModuleList<std::shared_ptr<DownBlock>>> down_blocks;
  std::shared_ptr<MidStage> mid_block;
  std::shared_ptr<nn::ModuleList<std::shared_ptr<UpBlock>>> up_blocks;
  nn::GroupNorm conv_norm_out{nullptr};
};

}  // namespace prefusion::unet

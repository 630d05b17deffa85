#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <filesystem>
#include <memory>
#include <string>

#include "vae/autoencoder_config.h"
#include "vae/coder_blocks.h"
#include "vae/tiling.h"

namespace prefusion::vae {

// The distribution of unscaled latents a picture is encoded to: independent normals, fp32.
struct Posterior {
  at::Tensor mean;    // [B, latent_channels, H / factor, W / factor]
  at::Tensor std;     // exp(logvar / 2)
  at::Tensor logvar;  // clamped to [-30, 20]
};

// The autoencoder of latent diffusion ("High-Resolution Image Synthesis with Latent Diffusion Models", arXiv
// 2112.10752). Computes in the dtype of its weights; takes any float dtype and returns fp32.
class AutoencoderKL : public torch::nn::Module {
 public:
  using Posterior = vae::Posterior;
  explicit AutoencoderKL(const AutoencoderKLConfig& config);

  // pixel_values [B, in_channels, H, W] in [-1, 1]. Input error for another shape.
  Posterior encode(const at::Tensor& pixel_values);

  // latents [B, latent_channels, H, W], scaled and shifted -> pixel_values [B, out_channels, H * factor, W * factor],
  // about [-1, 1] but not clamped.
  at::Tensor decode(const at::Tensor& latents);
  at::Tensor decode_unscaled(const at::Tensor& unscaled_latents);

  // Unscaled latents (a sample or the mean of the posterior) to latents: (x - shift) * scaling, and back.
  at::Tensor to_latents(const at::Tensor& unscaled_latents) const;
  at::Tensor to_unscaled_latents(const at::Tensor& latents) const;

  // Pixels a latent stands for in each direction: 8 for Stable Diffusion.
  int64_t scale_factor_px() const { return int64_t{1} << (config_.block_out_channels.size() - 1); }
  const AutoencoderKLConfig& config() const { return config_; }
  at::ScalarType dtype() const;

  void set_tiling(Tiling tiling) { tiling_ = tiling; }
  // Whether pictures of that size are worked on in tiles.
  bool uses_tiles(int64_t height_px, int64_t width_px) const;
  // Recompute the activations of each resnet block in the backward pass instead of keeping them.
  void set_gradient_checkpointing(bool enabled) { gradient_checkpointing_ = enabled; }

 private:
  AutoencoderKLConfig config_;
  Tiling tiling_ = Tiling::kAuto;
  bool gradient_checkpointing_ = false;
  std::shared_ptr<Encoder> encoder;
  std::shared_ptr<Decoder> decoder;
  nn::Conv2d quant_conv{nullptr}, post_quant_conv{nullptr};
};

// The autoencoder of a component folder. Attention weights under the names of before 2023 are accepted. When the config
// asks for `force_upcast`, fp16 becomes fp32.
std::shared_ptr<AutoencoderKL> load_autoencoder(const std::filesystem::path& folder, at::ScalarType dtype,
                                                at::Device device);

// The same network with allocated but unset weights; `config_json` is the text of a config.json.
std::shared_ptr<AutoencoderKL> make_autoencoder(const std::string& config_json, const std::string& where);

}  // namespace prefusion::vae

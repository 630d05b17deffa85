#include "vae/autoencoder_kl.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/logging.h"
#include "core/safetensors.h"
#include "nn/channels_last.h"

namespace prefusion::vae {
namespace {

constexpr int64_t kAutoTilingPixels = int64_t{2048} * 2048;

nn::Conv2d pointwise(int64_t channels) {
  return nn::Conv2d(nn::Conv2dOptions{channels, channels, 1, 1, 0});
}

void check_shape(const char* what, const at::Tensor& tensor, int64_t channels) {
  check_input(tensor.dim() == 4 && tensor.size(1) == channels, "AutoencoderKL: expected ", what, " [B, ", channels,
              ", H, W], found ", shape_text(tensor.sizes()));
}

}  // namespace

AutoencoderKL::AutoencoderKL(const AutoencoderKLConfig& config) : config_(config) {
  encoder = register_module("encoder", std::make_shared<Encoder>(config));
  decoder = register_module("decoder", std::make_shared<Decoder>(config));
  if (config.use_quant_conv) quant_conv = register_module("quant_conv", pointwise(2 * config.latent_channels));
  if (config.use_post_quant_conv) {
    post_quant_conv = register_module("post_quant_conv", pointwise(config.latent_channels));
  }
}

at::ScalarType AutoencoderKL::dtype() const {
  return parameters(/*recurse=*/true).front().scalar_type();
}

bool AutoencoderKL::uses_tiles(int64_t height_px, int64_t width_px) const {
  if (tiling_ == Tiling::kOff || std::max(height_px, width_px) <= config_.sample_size) return false;
  if (config_.sample_size < scale_factor_px()) return false;  // a tile would not hold one latent
  return tiling_ == Tiling::kOn || height_px * width_px >= kAutoTilingPixels;
}

Posterior AutoencoderKL::encode(const at::Tensor& pixel_values) {
  check_shape("pixel_values", pixel_values, config_.in_channels);
  check_input(std::min(pixel_values.size(2), pixel_values.size(3)) >= scale_factor_px(), "AutoencoderKL: a picture of ",
              pixel_values.size(3), "x", pixel_values.size(2), " pixels is smaller than one latent of ",
              scale_factor_px());
  const auto encode_whole = [this](const at::Tensor& pixels) {
    const at::Tensor moments = encoder->forward(pixels, gradient_checkpointing_);
    return quant_conv ? quant_conv->forward(moments) : moments;
  };
  const at::Tensor input = pixel_values.to(dtype());
  const at::Tensor moments =
      uses_tiles(input.size(2), input.size(3))
          ? map_tiles(input, {config_.sample_size, config_.sample_size / scale_factor_px()}, encode_whole)
          : encode_whole(input);
  const auto halves = moments.to(at::kFloat).chunk(2, /*dim=*/1);
  const at::Tensor logvar = at::clamp(halves[1], -30.0, 20.0);
  return {.mean = halves[0], .std = at::exp(0.5 * logvar), .logvar = logvar};
}

at::Tensor AutoencoderKL::decode_unscaled(const at::Tensor& unscaled_latents) {
  check_shape("latents", unscaled_latents, config_.latent_channels);
  const auto decode_whole = [this](const at::Tensor& latents) {
    return decoder->forward(post_quant_conv ? post_quant_conv->forward(latents) : latents, gradient_checkpointing_);
  };
  const int64_t factor = scale_factor_px();
  const at::Tensor input = unscaled_latents.to(dtype());
  const at::Tensor pixels = uses_tiles(input.size(2) * factor, input.size(3) * factor)
                                ? map_tiles(input, {config_.sample_size / factor, config_.sample_size}, decode_whole)
                                : decode_whole(input);
  return pixels.to(at::kFloat);
}

at::Tensor AutoencoderKL::decode(const at::Tensor& latents) {
  return decode_unscaled(to_unscaled_latents(latents));
}

at::Tensor AutoencoderKL::to_latents(const at::Tensor& unscaled_latents) const {
  return (unscaled_latents - config_.shift_factor) * config_.scaling_factor;
}

at::Tensor AutoencoderKL::to_unscaled_latents(const at::Tensor& latents) const {
  return latents / config_.scaling_factor + config_.shift_factor;
}

std::shared_ptr<AutoencoderKL> load_autoencoder(const std::filesystem::path& folder, at::ScalarType dtype,
                                                at::Device device) {
  const std::filesystem::path config_path = folder / "config.json";
  const AutoencoderKLConfig config = parse_autoencoder_config(read_json(config_path), config_path.string());
  auto autoencoder = std::make_shared<AutoencoderKL>(config);
  TensorMap weights = read_weights(folder, "diffusion_pytorch_model");
  nn::rename_deprecated_attention(weights, {"encoder.mid_block.attentions.0", "decoder.mid_block.attentions.0"});
  if (dtype == at::kHalf && config.force_upcast) {
    log_debug(folder.string(), ": force_upcast, so the autoencoder runs in fp32");
    dtype = at::kFloat;
  }
  nn::load_module(*autoencoder, weights, dtype, device, folder.string());
  nn::to_fastest_layout(*autoencoder);
  return autoencoder;
}

std::shared_ptr<AutoencoderKL> make_autoencoder(const std::string& config_json, const std::string& where) {
  return std::make_shared<AutoencoderKL>(parse_autoencoder_config(parse_json(config_json, where), where));
}

}  // namespace prefusion::vae

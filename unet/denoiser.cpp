#include "unet/denoiser.h"

#include <ATen/ATen.h>

#include <optional>

#include "core/error.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "core/safetensors.h"
#include "nn/channels_last.h"
#include "nn/frozen_weights.h"
#include "nn/layers.h"
#include "unet/dit_transformer.h"
#include "unet/flux_transformer.h"
#include "unet/pixart_transformer.h"
#include "unet/sd3_transformer.h"
#include "unet/unet_2d_condition.h"

namespace prefusion::unet {
namespace {

std::shared_ptr<Denoiser> make_unet_2d_condition(const Json& config, const std::string& where) {
  return std::make_shared<UNet2DConditionModel>(parse_unet_config(config, where));
}

std::shared_ptr<Denoiser> make_sd3_transformer(const Json& config, const std::string& where) {
  return std::make_shared<SD3Transformer2DModel>(parse_sd3_config(config, where));
}

std::shared_ptr<Denoiser> make_flux_transformer(const Json& config, const std::string& where) {
  return std::make_shared<FluxTransformer2DModel>(parse_flux_config(config, where));
}

std::shared_ptr<Denoiser> make_pixart_transformer(const Json& config, const std::string& where) {
  return std::make_shared<PixArtTransformer2DModel>(parse_pixart_config(config, where));
}

std::shared_ptr<Denoiser> make_dit_transformer(const Json& config, const std::string& where) {
  return std::make_shared<DiTTransformer2DModel>(parse_dit_config(config, where));
}

// One name for several networks, which their norms tell apart.
std::shared_ptr<Denoiser> make_old_transformer(const Json& config, const std::string& where) {
  const bool is_dit = config.value("norm_type", Json()) == "ada_norm_zero";
  return is_dit ? make_dit_transformer(config, where) : make_pixart_transformer(config, where);
}

// The denoisers there are, by the `_class_name` of their config.
struct DenoiserClass {
  const char* name;
  std::shared_ptr<Denoiser> (*make)(const Json& config, const std::string& where);
};
constexpr DenoiserClass kClasses[] = {
    {"UNet2DConditionModel", make_unet_2d_condition},       // Stable Diffusion 1, 2 and XL
    {"SD3Transformer2DModel", make_sd3_transformer},        // Stable Diffusion 3 and 3.5
    {"FluxTransformer2DModel", make_flux_transformer},      // FLUX.1
    {"PixArtTransformer2DModel", make_pixart_transformer},  // PixArt-alpha and PixArt-Sigma
    {"DiTTransformer2DModel", make_dit_transformer},        // DiT
    {"Transformer2DModel", make_old_transformer},           // PixArt and DiT in folders of before mid-2024
};

std::shared_ptr<Denoiser> make_from_json(const Json& config, const std::string& where) {
  check_input(config.is_object(), where, ": expected a JSON object");
  const Json name = config.value("_class_name", Json("UNet2DConditionModel"));
  std::string known;
  for (const DenoiserClass& entry : kClasses) {
    if (name == entry.name) return entry.make(config, where);
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fail_input(where, ": '_class_name' = ", name.dump(), " is not supported; known denoisers: ", known);
}

// Without a dtype that of the file.
std::shared_ptr<Denoiser> load(const std::filesystem::path& folder, std::optional<at::ScalarType> dtype,
                               at::Device device) {
  const std::filesystem::path config_path = folder / "config.json";
  auto denoiser = make_from_json(read_json(config_path), config_path.string());
  TensorMap weights = read_weights(folder, "diffusion_pytorch_model");
  denoiser->complete_weights(weights);
  nn::load_module(*denoiser, weights, dtype, device, folder.string());
  nn::to_fastest_layout(*denoiser);
  return denoiser;
}

}  // namespace

Conditioning select_rows(const Conditioning& conditioning, const at::Tensor& rows) {
  const auto selected = [&](const at::Tensor& part) { return part.defined() ? part.index_select(0, rows) : part; };
  return {.encoder_hidden_states = selected(conditioning.encoder_hidden_states),
          .encoder_mask = selected(conditioning.encoder_mask),
          .pooled = selected(conditioning.pooled),
          .time_ids = selected(conditioning.time_ids),
          .guidance = selected(conditioning.guidance),
          .user_states = selected(conditioning.user_states)};
}

at::Tensor without_variances(const at::Tensor& prediction, int64_t latent_channels) {
  return prediction.size(1) == latent_channels ? prediction : prediction.slice(1, 0, latent_channels);
}

std::filesystem::path denoiser_folder(const std::filesystem::path& model_dir) {
  const std::filesystem::path transformer = model_dir / "transformer";
  return std::filesystem::exists(transformer) ? transformer : model_dir / "unet";
}

std::shared_ptr<Denoiser> load_denoiser(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device) {
  return load(folder, dtype, device);
}

std::shared_ptr<Denoiser> load_streamed_denoiser(const std::filesystem::path& folder, at::ScalarType dtype,
                                                 at::Device device) {
  auto denoiser = load(folder, /*dtype=*/std::nullopt, at::kCPU);
  const auto dtype_of = [dtype](const std::string&) { return dtype; };
  const int64_t count = nn::stream_frozen_weights(*denoiser, dtype_of, device);
  log_info(count, " weights of ", folder.string(), " stay in host memory");
  return denoiser;
}

std::shared_ptr<Denoiser> make_denoiser(const std::string& config_json, const std::string& where) {
  return make_from_json(parse_json(config_json, where), where);
}

}  // namespace prefusion::unet

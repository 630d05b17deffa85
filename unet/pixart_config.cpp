#include "unet/pixart_config.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"

namespace prefusion::unet {
namespace {

int64_t at_least(ConfigReader& config, const std::string& key, int64_t lowest, int64_t fallback) {
  const int64_t value = config.get<int64_t>(key, fallback);
  check_input(value >= lowest, config.where(), ": '", key, "' must be at least ", lowest, ", found ", value);
  return value;
}

// ConfigReader takes null for absent; for these keys it asks for another network than their default.
void refuse_null(const ConfigReader& config, const Json& json, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (json.contains(key) && json.at(key).is_null()) config.refuse(key, nullptr);
  }
}

void refuse_unsupported(ConfigReader& config, const Json& json) {
  // The old class had other norms by default.
  if (json.value("_class_name", Json()) == "Transformer2DModel") config.require<std::string>("norm_type");
  config.only<std::string>("norm_type", "ada_norm_single");
  config.only<std::string>("attention_type", "default");
  config.only("only_cross_attention", false);
  config.only("double_self_attention", false);
  const Json vectors = config.raw("num_vector_embeds");
  if (!vectors.is_null()) config.refuse("num_vector_embeds", vectors);
  const double dropout = config.get<double>("dropout", 0.0);
  if (dropout != 0.0) config.refuse("dropout", dropout);
  refuse_null(config, json, {"cross_attention_dim", "in_channels", "sample_size", "patch_size", "num_embeds_ada_norm"});
  // Without a meaning for patches and this norm; attention accumulates in fp32 in any case.
  config.ignore({"norm_num_groups", "num_embeds_ada_norm", "use_linear_projection", "upcast_attention"});
}

void read_shape(ConfigReader& config, const Json& json, PixArtConfig& result) {
  result.in_channels = at_least(config, "in_channels", 1, result.in_channels);
  const bool is_null = json.contains("out_channels") && json.at("out_channels").is_null();
  result.out_channels = at_least(config, "out_channels", 1, is_null ? result.in_channels : result.out_channels);
  result.num_layers = at_least(config, "num_layers", 1, result.num_layers);
  result.num_heads = at_least(config, "num_attention_heads", 1, result.num_heads);
  result.head_dim = at_least(config, "attention_head_dim", 1, result.head_dim);
  check_input(result.inner_dim() % 4 == 0, config.where(),
              ": 'num_attention_heads' * 'attention_head_dim' = ", result.inner_dim(),
              " must be a multiple of 4, as half of the channels tell a patch's row");
  result.cross_attention_dim = at_least(config, "cross_attention_dim", 1, result.cross_attention_dim);
  result.caption_channels = at_least(config, "caption_channels", 0, 0);
  check_input(result.caption_channels == 0 || result.cross_attention_dim == result.inner_dim(), config.where(),
              ": 'cross_attention_dim' = ", result.cross_attention_dim, " differs from the ", result.inner_dim(),
              " channels that captions are projected to ('num_attention_heads' * 'attention_head_dim')");
  result.sample_size = at_least(config, "sample_size", 1, result.sample_size);
  result.patch_size = at_least(config, "patch_size", 1, result.patch_size);
  check_input(result.sample_size >= result.patch_size, config.where(), ": 'sample_size' = ", result.sample_size,
              " holds no patch of 'patch_size' = ", result.patch_size);
}

void read_layers(ConfigReader& config, PixArtConfig& result) {
  result.attention_bias = config.get<bool>("attention_bias", result.attention_bias);
  result.activation = config.get<std::string>("activation_fn", result.activation);
  constexpr std::array<std::string_view, 4> kActivations = {"geglu", "gelu", "gelu-approximate", "geglu-approximate"};
  if (std::find(kActivations.begin(), kActivations.end(), result.activation) == kActivations.end()) {
    config.refuse("activation_fn", result.activation);
  }
  result.norm_elementwise_affine = config.get<bool>("norm_elementwise_affine", result.norm_elementwise_affine);
  result.norm_eps = config.get<double>("norm_eps", result.norm_eps);
}

void read_conditions(ConfigReader& config, PixArtConfig& result) {
  const int64_t by_size = std::max<int64_t>(result.sample_size / 64, 1);
  result.interpolation_scale = config.get<double>("interpolation_scale", static_cast<double>(by_size));
  check_input(result.interpolation_scale > 0, config.where(), ": 'interpolation_scale' must be positive, found ",
              result.interpolation_scale);
  // The 1024-pixel model of PixArt-alpha is the one with conditions; its config knows no key for them.
  result.use_additional_conditions = config.get<bool>("use_additional_conditions", result.sample_size == 128);
  check_input(!result.use_additional_conditions || result.inner_dim() % 3 == 0, config.where(),
              ": 'use_additional_conditions' needs 'num_attention_heads' * 'attention_head_dim' to be a multiple of 3 "
              "(height, width and aspect ratio), found ",
              result.inner_dim());
}

}  // namespace

PixArtConfig parse_pixart_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  refuse_unsupported(config, json);
  PixArtConfig result;
  read_shape(config, json, result);
  read_layers(config, result);
  read_conditions(config, result);
  config.finish();
  return result;
}

}  // namespace prefusion::unet

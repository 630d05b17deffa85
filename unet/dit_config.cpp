#include "unet/dit_config.h"

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

// What the old class knows beside the keys of the new one, where it asks for another network.
void refuse_old_keys(ConfigReader& config) {
  config.only<std::string>("attention_type", "default");
  config.only("only_cross_attention", false);
  config.only("double_self_attention", false);
  for (const char* key : {"num_vector_embeds", "cross_attention_dim", "caption_channels"}) {
    const Json value = config.raw(key);
    if (!value.is_null()) config.refuse(key, value);
  }
  config.ignore({"use_linear_projection", "interpolation_scale", "use_additional_conditions"});
}

void refuse_unsupported(ConfigReader& config, const Json& json) {
  const bool is_old_class = json.value("_class_name", Json()) == "Transformer2DModel";
  // The old class had other norms by default.
  if (is_old_class) config.require<std::string>("norm_type");
  config.only<std::string>("norm_type", "ada_norm_zero");
  const double dropout = config.get<double>("dropout", 0.0);
  if (dropout != 0.0) config.refuse("dropout", dropout);
  // ConfigReader takes null for absent; for these keys it asks for another network than their default.
  for (const char* key : {"in_channels", "sample_size", "patch_size", "num_embeds_ada_norm"}) {
    if (json.contains(key) && json.at(key).is_null()) config.refuse(key, nullptr);
  }
  if (is_old_class) refuse_old_keys(config);
  // Without a meaning for patches; attention accumulates in fp32 in any case.
  config.ignore({"norm_num_groups", "upcast_attention"});
}

void read_shape(ConfigReader& config, DitConfig& result) {
  result.in_channels = at_least(config, "in_channels", 1, result.in_channels);
  result.out_channels = at_least(config, "out_channels", 1, result.in_channels);
  result.num_layers = at_least(config, "num_layers", 1, result.num_layers);
  result.num_heads = at_least(config, "num_attention_heads", 1, result.num_heads);
  result.head_dim = at_least(config, "attention_head_dim", 1, result.head_dim);
  check_input(result.inner_dim() % 4 == 0, config.where(),
              ": 'num_attention_heads' * 'attention_head_dim' = ", result.inner_dim(),
              " must be a multiple of 4, as half of the channels tell a patch's row");
  result.num_classes = at_least(config, "num_embeds_ada_norm", 1, result.num_classes);
  result.sample_size = at_least(config, "sample_size", 1, result.sample_size);
  result.patch_size = at_least(config, "patch_size", 1, result.patch_size);
  check_input(result.sample_size >= result.patch_size, config.where(), ": 'sample_size' = ", result.sample_size,
              " holds no patch of 'patch_size' = ", result.patch_size);
}

void read_layers(ConfigReader& config, DitConfig& result) {
  result.attention_bias = config.get<bool>("attention_bias", result.attention_bias);
  result.activation = config.get<std::string>("activation_fn", result.activation);
  constexpr std::array<std::string_view, 4> kActivations = {"geglu", "gelu", "gelu-approximate", "geglu-approximate"};
  if (std::find(kActivations.begin(), kActivations.end(), result.activation) == kActivations.end()) {
    config.refuse("activation_fn", result.activation);
  }
  result.norm_elementwise_affine = config.get<bool>("norm_elementwise_affine", result.norm_elementwise_affine);
  result.norm_eps = config.get<double>("norm_eps", result.norm_eps);
}

}  // namespace

DitConfig parse_dit_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  refuse_unsupported(config, json);
  DitConfig result;
  read_shape(config, result);
  read_layers(config, result);
  config.finish();
  return result;
}

}  // namespace prefusion::unet

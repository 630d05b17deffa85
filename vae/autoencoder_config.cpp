#include "vae/autoencoder_config.h"

#include <algorithm>

#include "core/error.h"

namespace prefusion::vae {
namespace {

void check_block_types(ConfigReader& config, const std::string& key, const std::string& supported, size_t stages) {
  const auto types = config.get<std::vector<std::string>>(key, {supported});
  for (const std::string& type : types) {
    if (type != supported) config.refuse(key, type);
  }
  check_input(types.size() == stages, config.where(), ": '", key, "' has ", types.size(), " entries for ", stages,
              " 'block_out_channels'");
}

int64_t positive(ConfigReader& config, const std::string& key, int64_t fallback) {
  const int64_t value = config.get<int64_t>(key, fallback);
  check_input(value > 0, config.where(), ": '", key, "' must be positive, found ", value);
  return value;
}

int64_t read_sample_size(ConfigReader& config) {
  const Json& size = config.raw("sample_size");
  if (size.is_null()) return 32;
  const Json& first = size.is_array() && !size.empty() ? size[0] : size;
  if (!first.is_number_integer() || first.get<int64_t>() <= 0) config.refuse("sample_size", size);
  return first.get<int64_t>();
}

nn::Activation read_activation(ConfigReader& config) {
  const std::string given = config.get<std::string>("act_fn", "silu");
  std::string name = given;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name != "silu" && name != "swish" && name != "mish" && name != "gelu" && name != "relu") {
    config.refuse("act_fn", given);
  }
  return nn::activation_by_name(name, config.where());
}

}  // namespace

AutoencoderKLConfig parse_autoencoder_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  config.only<std::string>("_class_name", "AutoencoderKL");
  for (const char* key : {"latents_mean", "latents_std"}) {
    const Json value = config.raw(key);
    if (!value.is_null()) config.refuse(key, value);
  }
  AutoencoderKLConfig result;
  result.in_channels = positive(config, "in_channels", 3);
  result.out_channels = positive(config, "out_channels", 3);
  result.block_out_channels = config.get<std::vector<int64_t>>("block_out_channels", {64});
  for (const int64_t count : result.block_out_channels) {
    if (count <= 0) config.refuse("block_out_channels", result.block_out_channels);
  }
  if (result.block_out_channels.empty()) config.refuse("block_out_channels", Json::array());
  check_block_types(config, "down_block_types", "DownEncoderBlock2D", result.block_out_channels.size());
  check_block_types(config, "up_block_types", "UpDecoderBlock2D", result.block_out_channels.size());
  result.layers_per_block = positive(config, "layers_per_block", 1);
  result.activation = read_activation(config);
  result.latent_channels = positive(config, "latent_channels", 4);
  result.norm_num_groups = positive(config, "norm_num_groups", 32);
  result.sample_size = read_sample_size(config);
  result.scaling_factor = config.get<double>("scaling_factor", 0.18215);
  if (result.scaling_factor == 0) config.refuse("scaling_factor", result.scaling_factor);
  result.shift_factor = config.get<double>("shift_factor", 0.0);
  result.force_upcast = config.get<bool>("force_upcast", true);
  result.use_quant_conv = config.get<bool>("use_quant_conv", true);
  result.use_post_quant_conv = config.get<bool>("use_post_quant_conv", true);
  result.mid_block_add_attention = config.get<bool>("mid_block_add_attention", true);
  config.finish();
  return result;
}

}  // namespace prefusion::vae

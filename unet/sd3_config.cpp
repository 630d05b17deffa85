#include "unet/sd3_config.h"

#include <algorithm>

namespace prefusion::unet {
namespace {

int64_t positive(ConfigReader& config, const std::string& key, int64_t fallback) {
  const int64_t value = config.get<int64_t>(key, fallback);
  check_input(value > 0, config.where(), ": '", key, "' must be positive, found ", value);
  return value;
}

// Null says something else than an absent key, which means the default.
bool is_null(const Json& json, const char* key) {
  return json.contains(key) && json.at(key).is_null();
}

void read_widths(ConfigReader& config, SD3Config& result) {
  result.num_attention_heads = positive(config, "num_attention_heads", 18);
  result.attention_head_dim = positive(config, "attention_head_dim", 64);
  result.joint_attention_dim = positive(config, "joint_attention_dim", 4096);
  result.pooled_projection_dim = positive(config, "pooled_projection_dim", 2048);
  const int64_t caption_dim = positive(config, "caption_projection_dim", 1152);
  check_input(caption_dim == result.inner_dim(), config.where(), ": 'caption_projection_dim' = ", caption_dim,
              " must equal 'num_attention_heads' * 'attention_head_dim' = ", result.inner_dim());
  // Sines and cosines of row and column share the width.
  check_input(result.inner_dim() % 4 == 0, config.where(),
              ": 'num_attention_heads' * 'attention_head_dim' = ", result.inner_dim(), " must be a multiple of 4");
}

void read_blocks(ConfigReader& config, SD3Config& result) {
  const int64_t num_layers = positive(config, "num_layers", 18);
  const auto dual = config.get<std::vector<int64_t>>("dual_attention_layers", {});
  for (int64_t i = 0; i < num_layers; ++i) {
    result.is_dual.push_back(std::find(dual.begin(), dual.end(), i) != dual.end());
  }
  const auto qk_norm = config.optional<std::string>("qk_norm");
  if (qk_norm && *qk_norm != "rms_norm") config.refuse("qk_norm", *qk_norm);
  result.has_qk_norm = qk_norm.has_value();
}

}  // namespace

SD3Config parse_sd3_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  config.only<std::string>("_class_name", "SD3Transformer2DModel");
  SD3Config result;
  result.patch_size = positive(config, "patch_size", 2);
  result.sample_size = positive(config, "sample_size", 128);
  check_input(result.sample_size >= result.patch_size, where, ": 'sample_size' = ", result.sample_size,
              " is smaller than 'patch_size' = ", result.patch_size);
  result.in_channels = positive(config, "in_channels", 16);
  result.out_channels = is_null(json, "out_channels") ? result.in_channels : positive(config, "out_channels", 16);
  result.pos_embed_max_size = is_null(json, "pos_embed_max_size") ? 0 : positive(config, "pos_embed_max_size", 96);
  config.ignore({"out_channels", "pos_embed_max_size"});  // read where they are not null
  read_widths(config, result);
  read_blocks(config, result);
  config.finish();
  return result;
}

}  // namespace prefusion::unet

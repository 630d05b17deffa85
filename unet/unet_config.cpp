#include "unet/unet_config.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace prefusion::unet {
namespace {

// A number or a list of integers, one entry a stage.
std::vector<int64_t> per_stage(ConfigReader& config, const std::string& key, size_t stages, int64_t fallback) {
  std::vector<int64_t> values = config.int_or_list(key, stages, fallback);
  for (const int64_t value : values) {
    check_input(value > 0, config.where(), ": '", key, "' must be positive, found ", value);
  }
  return values;
}

int64_t positive(ConfigReader& config, const std::string& key, int64_t fallback) {
  const int64_t value = config.get<int64_t>(key, fallback);
  check_input(value > 0, config.where(), ": '", key, "' must be positive, found ", value);
  return value;
}

// "UNetRes" is an old prefix of block names.
std::string block_name(std::string name) {
  return name.starts_with("UNetRes") ? name.substr(7) : name;
}

bool has_attention(const ConfigReader& config, const std::string& key, const std::string& type, const char* plain,
                   const char* with_attention) {
  const std::string name = block_name(type);
  if (name != plain && name != with_attention) config.refuse(key, type);
  return name == with_attention;
}

std::vector<bool> only_cross_attention(ConfigReader& config, size_t stages) {
  const Json& value = config.raw("only_cross_attention");
  if (value.is_null()) return std::vector<bool>(stages, false);
  if (value.is_boolean()) return std::vector<bool>(stages, value.get<bool>());
  const auto list = config.get<std::vector<bool>>("only_cross_attention", {});
  check_input(list.size() == stages, config.where(), ": 'only_cross_attention' has ", list.size(), " entries for ",
              stages, " blocks");
  return list;
}

// Transformer blocks behind each of `layers` resnet blocks, from an entry that is a number or a list.
std::vector<int64_t> transformer_layers(const ConfigReader& config, const std::string& key, const Json& entry,
                                        int64_t layers) {
  std::vector<int64_t> counts;
  if (entry.is_number_integer()) {
    counts.assign(layers, entry.get<int64_t>());
  } else if (entry.is_array() && entry.size() >= static_cast<size_t>(layers) &&
             std::all_of(entry.begin(), entry.end(), [](const Json& n) { return n.is_number_integer(); })) {
    counts = entry.get<std::vector<int64_t>>();
    counts.resize(layers);
  } else {
    config.refuse(key, entry);
  }
  for (const int64_t count : counts) {
    if (count < 0) config.refuse(key, entry);
  }
  return counts;
}

Json transformer_entries(ConfigReader& config, const std::string& key, size_t stages) {
  Json value = config.raw(key);
  if (value.is_null()) value = 1;
  if (value.is_number_integer()) return Json(std::vector<Json>(stages, value));
  if (!value.is_array() || value.size() != stages) config.refuse(key, value);
  return value;
}

std::vector<std::string> block_types(ConfigReader& config, const std::string& key, const std::string& plain,
                                     bool down) {
  const std::string attention = "CrossAttn" + plain;
  std::vector<std::string> fallback(4, attention);
  (down ? fallback.back() : fallback.front()) = plain;
  return config.get<std::vector<std::string>>(key, fallback);
}

std::vector<int64_t> read_channels(ConfigReader& config, size_t stages) {
  const auto channels = config.get<std::vector<int64_t>>("block_out_channels", {320, 640, 1280, 1280});
  check_input(channels.size() == stages, config.where(), ": 'block_out_channels' has ", channels.size(),
              " entries for ", stages, " blocks");
  for (const int64_t count : channels) {
    if (count <= 0) config.refuse("block_out_channels", channels);
  }
  return channels;
}

void read_down_stages(ConfigReader& config, const std::vector<std::string>& types, UNetConfig& result) {
  const size_t stages = types.size();
  const auto channels = read_channels(config, stages);
  const auto layers = per_stage(config, "layers_per_block", stages, 2);
  const auto cross_dims = per_stage(config, "cross_attention_dim", stages, 1280);
  // The published configs hold the number of heads under the name of their width; the other name was never usable.
  const auto heads = per_stage(config, "attention_head_dim", stages, 8);
  const auto only_cross = only_cross_attention(config, stages);
  const Json transformers = transformer_entries(config, "transformer_layers_per_block", stages);
  for (size_t i = 0; i < stages; ++i) {
    UNetStageConfig stage{
        .has_attention = has_attention(config, "down_block_types", types[i], "DownBlock2D", "CrossAttnDownBlock2D"),
        .channels = channels[i],
        .num_layers = layers[i],
        .num_heads = heads[i],
        .cross_attention_dim = cross_dims[i],
        .only_cross_attention = only_cross[i]};
    if (stage.has_attention) {
      stage.transformer_layers =
          transformer_layers(config, "transformer_layers_per_block", transformers[i], stage.num_layers);
    }
    result.down.push_back(std::move(stage));
  }
  if (result.mid == MidBlock::kCrossAttention) {
    result.mid_transformer_layers =
        transformer_layers(config, "transformer_layers_per_block", transformers.back(), 1).front();
  }
}

// Transformer counts of the way up: their own list, or that of the way down reversed.
Json up_transformer_entries(ConfigReader& config, size_t stages) {
  if (config.has("reverse_transformer_layers_per_block")) {
    return transformer_entries(config, "reverse_transformer_layers_per_block", stages);
  }
  Json entries = transformer_entries(config, "transformer_layers_per_block", stages);
  for (const Json& entry : entries) {
    check_input(!entry.is_array(), config.where(),
                ": nested 'transformer_layers_per_block' needs 'reverse_transformer_layers_per_block'");
  }
  std::reverse(entries.begin(), entries.end());
  return entries;
}

void read_up_stages(ConfigReader& config, const std::vector<std::string>& types, UNetConfig& result) {
  const Json transformers = up_transformer_entries(config, types.size());
  const char* key = config.has("reverse_transformer_layers_per_block") ? "reverse_transformer_layers_per_block"
                                                                       : "transformer_layers_per_block";
  for (size_t i = 0; i < types.size(); ++i) {
    UNetStageConfig stage = result.down[types.size() - 1 - i];
    stage.num_layers += 1;
    stage.has_attention = has_attention(config, "up_block_types", types[i], "UpBlock2D", "CrossAttnUpBlock2D");
    stage.transformer_layers.clear();
    if (stage.has_attention) {
      stage.transformer_layers = transformer_layers(config, key, transformers[i], stage.num_layers);
    }
    result.up.push_back(std::move(stage));
  }
}

void read_stages(ConfigReader& config, UNetConfig& result) {
  const auto down_types = block_types(config, "down_block_types", "DownBlock2D", /*down=*/true);
  const auto up_types = block_types(config, "up_block_types", "UpBlock2D", /*down=*/false);
  check_input(!down_types.empty() && up_types.size() == down_types.size(), config.where(), ": 'down_block_types' has ",
              down_types.size(), " entries and 'up_block_types' ", up_types.size());
  read_down_stages(config, down_types, result);
  read_up_stages(config, up_types, result);
}

// All attention blocks see the same encoder_hidden_states.
void find_cross_attention_dim(const ConfigReader& config, UNetConfig& result) {
  std::vector<int64_t> dims;
  for (const auto& stage : result.down) {
    if (stage.has_attention) dims.push_back(stage.cross_attention_dim);
  }
  for (const auto& stage : result.up) {
    if (stage.has_attention) dims.push_back(stage.cross_attention_dim);
  }
  if (result.mid == MidBlock::kCrossAttention) dims.push_back(result.down.back().cross_attention_dim);
  result.cross_attention_dim = dims.empty() ? result.down.front().cross_attention_dim : dims.front();
  for (const int64_t dim : dims) {
    if (dim != result.cross_attention_dim) config.refuse("cross_attention_dim", dims);
  }
}

void read_sample_size(ConfigReader& config, UNetConfig& result) {
  const Json& size = config.raw("sample_size");
  if (size.is_null()) return;
  if (size.is_number_integer()) {
    result.sample_height = result.sample_width = size.get<int64_t>();
  } else if (size.is_array() && size.size() == 2 && size[0].is_number_integer() && size[1].is_number_integer()) {
    result.sample_height = size[0].get<int64_t>();
    result.sample_width = size[1].get<int64_t>();
  } else {
    config.refuse("sample_size", size);
  }
  if (result.sample_height <= 0 || result.sample_width <= 0) config.refuse("sample_size", size);
}

// An activation diffusers knows; its names are case-insensitive.
nn::Activation read_activation(ConfigReader& config, const std::string& key, const std::string& fallback) {
  const std::string given = config.get<std::string>(key, fallback);
  if (given.empty()) return nullptr;
  std::string name = given;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name != "silu" && name != "swish" && name != "mish" && name != "gelu" && name != "relu") {
    config.refuse(key, given);
  }
  return nn::activation_by_name(name, config.where());
}

void read_embeddings(ConfigReader& config, int64_t first_channels, UNetConfig& result) {
  config.only<std::string>("time_embedding_type", "positional");
  result.flip_sin_to_cos = config.get<bool>("flip_sin_to_cos", true);
  result.freq_shift = config.get<double>("freq_shift", 0);
  result.time_embedding_dim = positive(config, "time_embedding_dim", 4 * first_channels);
  result.time_activation = read_activation(config, "time_embedding_act_fn", "");
  result.timestep_post_activation = read_activation(config, "timestep_post_act", "");
  const auto addition = config.optional<std::string>("addition_embed_type");
  if (addition && *addition != "text_time") config.refuse("addition_embed_type", *addition);
  result.has_text_time = addition.has_value();
  if (result.has_text_time) {
    result.addition_time_embed_dim = config.require<int64_t>("addition_time_embed_dim");
    result.addition_input_dim = config.require<int64_t>("projection_class_embeddings_input_dim");
    check_input(result.addition_time_embed_dim > 0 && result.addition_input_dim > 0, config.where(),
                ": 'addition_time_embed_dim' and 'projection_class_embeddings_input_dim' must be positive");
  }
  // Without text_time these have no meaning in this network.
  config.ignore({"addition_time_embed_dim", "projection_class_embeddings_input_dim", "addition_embed_type_num_heads"});
}

void refuse_unsupported(ConfigReader& config) {
  config.only<std::string>("_class_name", "UNet2DConditionModel");
  for (const char* key : {"class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type",
                          "time_cond_proj_dim", "num_attention_heads"}) {
    const Json value = config.raw(key);
    if (!value.is_null()) config.refuse(key, value);
  }
  config.only("dual_cross_attention", false);
  config.only("class_embeddings_concat", false);
  config.only<std::string>("attention_type", "default");
  const double dropout = config.get<double>("dropout", 0.0);
  if (dropout != 0.0) config.refuse("dropout", dropout);
  // Only block types that are refused anyway look at these; attention accumulates in fp32 in any case.
  config.ignore({"resnet_skip_time_act", "resnet_out_scale_factor", "cross_attention_norm",
                 "mid_block_only_cross_attention", "upcast_attention"});
}

MidBlock read_mid_block(ConfigReader& config, const Json& json) {
  // Here null means "no such block", while an absent key means the default.
  if (json.contains("mid_block_type") && json.at("mid_block_type").is_null()) return MidBlock::kNone;
  const auto type = config.get<std::string>("mid_block_type", "UNetMidBlock2DCrossAttn");
  if (type == "UNetMidBlock2DCrossAttn") return MidBlock::kCrossAttention;
  if (type != "UNetMidBlock2D") config.refuse("mid_block_type", type);
  return MidBlock::kResnetOnly;
}

}  // namespace

UNetConfig parse_unet_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  refuse_unsupported(config);
  if (json.contains("norm_num_groups") && json.at("norm_num_groups").is_null()) {
    config.refuse("norm_num_groups", nullptr);
  }
  UNetConfig result;
  result.mid = read_mid_block(config, json);
  result.in_channels = positive(config, "in_channels", 4);
  result.out_channels = positive(config, "out_channels", 4);
  read_sample_size(config, result);
  read_stages(config, result);
  find_cross_attention_dim(config, result);
  result.mid_scale_factor = config.get<double>("mid_block_scale_factor", 1.0);
  result.downsample_padding = config.get<int64_t>("downsample_padding", 1);
  if (result.downsample_padding < 0) config.refuse("downsample_padding", result.downsample_padding);
  result.norm_num_groups = positive(config, "norm_num_groups", 32);
  result.norm_eps = config.get<double>("norm_eps", 1e-5);
  result.conv_in_kernel = positive(config, "conv_in_kernel", 3);
  result.conv_out_kernel = positive(config, "conv_out_kernel", 3);
  result.activation = read_activation(config, "act_fn", "silu");
  result.center_input_sample = config.get<bool>("center_input_sample", false);
  result.use_linear_projection = config.get<bool>("use_linear_projection", false);
  const auto shift = config.get<std::string>("resnet_time_scale_shift", "default");
  if (shift != "default" && shift != "scale_shift") config.refuse("resnet_time_scale_shift", shift);
  result.is_scale_shift = shift == "scale_shift";
  read_embeddings(config, result.down.front().channels, result);
  config.finish();
  return result;
}

}  // namespace prefusion::unet

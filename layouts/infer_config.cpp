#include "layouts/infer_config.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "layouts/network_layouts.h"

namespace prefusion::layouts {
namespace {

// Shapes of the tensors of one network.
class Shapes {
 public:
  Shapes(const TensorSources& tensors, std::string where) : tensors_(tensors), where_(std::move(where)) {}

  int64_t size(const std::string& name, size_t dimension) const {
    const auto found = tensors_.find(name);
    check_input(found != tensors_.end(), where_, ": tensor '", name, "' is missing");
    const auto& shape = found->second.shape;
    check_input(dimension < shape.size(), where_, ": '", name, "' has shape ", shape_text(shape),
                ", expected at least ", dimension + 1, " dimensions");
    return shape[dimension];
  }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  int64_t count(const std::string& prefix) const { return count_numbered(tensors_, prefix); }
  size_t dimensions(const std::string& name) const { return tensors_.at(name).shape.size(); }
  const TensorSources& tensors() const { return tensors_; }
  const std::string& where() const { return where_; }

  // `size` must be a multiple of `unit`, else the published value is not that of this model.
  void expect_multiple(int64_t size, int64_t unit, const char* what) const {
    check_input(size % unit == 0 && size > 0, where_, ": shapes do not tell the ", what, ", and the published ", unit,
                " does not fit a width of ", size, "; give the model's configs with --config FOLDER");
  }

 private:
  const TensorSources& tensors_;
  std::string where_;
};

// A list, or the one number that all its entries are.
Json collapsed(const std::vector<int64_t>& values) {
  const bool all_equal = std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == values.front(); });
  return all_equal ? Json(values.front()) : Json(values);
}

int64_t unet_sample_size(Family family, bool predicts_v) {
  if (family == Family::kSd1) return 64;
  if (family == Family::kSd2) return predicts_v ? 96 : 64;
  return 128;
}

Json unet_config(Family family, const Shapes& shapes, const std::string& prediction_type) {
  const UNetShape blocks = unet_shape_of_diffusers(shapes.tensors(), shapes.where());
  std::vector<int64_t> channels, heads, depths;
  std::vector<std::string> down_types, up_types;
  int64_t cross_attention_dim = 0;
  bool use_linear_projection = false;
  // SD 1 has eight heads in every block, later models have heads of 64 channels.
  const auto num_heads = [&](int64_t width, bool has_attention) {
    if (has_attention) shapes.expect_multiple(width, family == Family::kSd1 ? 8 : 64, "number of attention heads");
    return family == Family::kSd1 ? int64_t{8} : std::max<int64_t>(1, width / 64);
  };
  for (int64_t i = 0; i < blocks.num_blocks(); ++i) {
    const std::string block = concat("down_blocks.", i);
    const std::string attention = block + ".attentions.0.";
    const bool has_attention = shapes.count(block + ".attentions.") > 0;
    channels.push_back(shapes.size(block + ".resnets.0.conv1.weight", 0));
    heads.push_back(num_heads(channels.back(), has_attention));
    depths.push_back(has_attention ? shapes.count(attention + "transformer_blocks.") : 0);
    down_types.push_back(has_attention ? "CrossAttnDownBlock2D" : "DownBlock2D");
    up_types.push_back(blocks.up_attention[i] ? "CrossAttnUpBlock2D" : "UpBlock2D");
    if (!has_attention) continue;
    cross_attention_dim = shapes.size(attention + "transformer_blocks.0.attn2.to_k.weight", 1);
    use_linear_projection =
        shapes.has(attention + "proj_in.weight") && shapes.dimensions(attention + "proj_in.weight") == 2;
  }
  check_input(cross_attention_dim > 0, shapes.where(), ": no block of the UNet has cross-attention");
  // The middle block has the last entry; entries of blocks without attention mean nothing else.
  if (depths.back() == 0) depths.back() = shapes.count("mid_block.attentions.0.transformer_blocks.");
  num_heads(channels.back(), true);
  const int64_t least = *std::max_element(depths.begin(), depths.end()) == depths.back() ? depths.back() : 1;
  const bool is_even = std::all_of(depths.begin(), depths.end(), [&](int64_t d) { return d == 0 || d == least; });
  for (int64_t& depth : depths) depth = depth == 0 ? (is_even ? least : 1) : depth;
  Json config = {{"_class_name", "UNet2DConditionModel"},
                 {"act_fn", "silu"},
                 {"attention_head_dim", collapsed(heads)},
                 {"block_out_channels", channels},
                 {"center_input_sample", false},
                 {"cross_attention_dim", cross_attention_dim},
                 {"down_block_types", down_types},
                 {"downsample_padding", 1},
                 {"flip_sin_to_cos", true},
                 {"freq_shift", 0},
                 {"in_channels", shapes.size("conv_in.weight", 1)},
                 {"layers_per_block", collapsed(blocks.layers)},
                 {"mid_block_scale_factor", 1},
                 {"norm_eps", 1e-05},
                 {"norm_num_groups", 32},
                 {"out_channels", shapes.size("conv_out.weight", 0)},
                 {"sample_size", unet_sample_size(family, prediction_type != "epsilon")},
                 {"transformer_layers_per_block", collapsed(depths)},
                 {"up_block_types", up_types},
                 {"use_linear_projection", use_linear_projection}};
  // In fp16 the attention of SD 2.1 overflows.
  if (family == Family::kSd2) config["upcast_attention"] = true;
  if (shapes.has("add_embedding.linear_1.weight")) {
    config["addition_embed_type"] = "text_time";
    config["addition_time_embed_dim"] = 256;
    config["projection_class_embeddings_input_dim"] = shapes.size("add_embedding.linear_1.weight", 1);
  }
  for (const int64_t width : channels) shapes.expect_multiple(width, 32, "number of groups of its norms");
  return config;
}

struct LatentScale {
  double scaling_factor;
  double shift_factor;
  int64_t sample_size_px;
};

LatentScale latent_scale(Family family) {
  switch (family) {
    case Family::kSd1: return {0.18215, 0, 512};
    case Family::kSd2: return {0.18215, 0, 768};
    case Family::kSdxl:
    case Family::kSdxlRefiner: return {0.13025, 0, 1024};
    case Family::kSd3: return {1.5305, 0.0609, 1024};
    case Family::kFlux: return {0.3611, 0.1159, 1024};
  }
  return {0.18215, 0, 512};
}

Json autoencoder_config(Family family, const Shapes& shapes) {
  std::vector<int64_t> channels;
  const int64_t blocks = shapes.count("encoder.down_blocks.");
  check_input(blocks > 0, shapes.where(), ": the autoencoder has no encoder blocks");
  for (int64_t i = 0; i < blocks; ++i) {
    channels.push_back(shapes.size(concat("encoder.down_blocks.", i, ".resnets.0.conv1.weight"), 0));
    shapes.expect_multiple(channels.back(), 32, "number of groups of its norms");
  }
  const LatentScale scale = latent_scale(family);
  Json config = {{"_class_name", "AutoencoderKL"},
                 {"act_fn", "silu"},
                 {"block_out_channels", channels},
                 {"down_block_types", std::vector<std::string>(blocks, "DownEncoderBlock2D")},
                 {"force_upcast", true},
                 {"in_channels", shapes.size("encoder.conv_in.weight", 1)},
                 {"latent_channels", shapes.size("decoder.conv_in.weight", 1)},
                 {"layers_per_block", shapes.count("encoder.down_blocks.0.resnets.")},
                 {"norm_num_groups", 32},
                 {"out_channels", shapes.size("decoder.conv_out.weight", 0)},
                 {"sample_size", scale.sample_size_px},
                 {"scaling_factor", scale.scaling_factor},
                 {"up_block_types", std::vector<std::string>(blocks, "UpDecoderBlock2D")},
                 {"use_post_quant_conv", shapes.has("post_quant_conv.weight")},
                 {"use_quant_conv", shapes.has("quant_conv.weight")}};
  if (scale.shift_factor != 0) config["shift_factor"] = scale.shift_factor;
  return config;
}

Json clip_config(Family family, const ComponentLayout& component, const Shapes& shapes) {
  const int64_t width = shapes.size("text_model.embeddings.token_embedding.weight", 1);
  shapes.expect_multiple(width, 64, "number of attention heads");
  // The only tower of OpenAI's CLIP among them is ViT-L's; SD3 keeps OpenCLIP's bigG in transformers' names.
  const bool is_open_ai = component.kind == NetworkKind::kClip && !(family == Family::kSd3 && width != 768);
  const bool has_projection = shapes.has("text_projection.weight");
  return {{"architectures", {component.class_name}},
          {"attention_dropout", 0.0},
          {"bos_token_id", 0},
          {"eos_token_id", 2},
          {"hidden_act", is_open_ai ? "quick_gelu" : "gelu"},
          {"hidden_size", width},
          {"intermediate_size", shapes.size("text_model.encoder.layers.0.mlp.fc1.weight", 0)},
          {"layer_norm_eps", 1e-05},
          {"max_position_embeddings", shapes.size("text_model.embeddings.position_embedding.weight", 0)},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", width / 64},
          {"num_hidden_layers", shapes.count("text_model.encoder.layers.")},
          {"pad_token_id", 1},
          {"projection_dim", has_projection ? shapes.size("text_projection.weight", 0) : width},
          {"vocab_size", shapes.size("text_model.embeddings.token_embedding.weight", 0)}};
}

Json t5_config(const Shapes& shapes) {
  const std::string first = "encoder.block.0.layer.";
  const std::string bias = first + "0.SelfAttention.relative_attention_bias.weight";
  const int64_t heads = shapes.size(bias, 1);
  check_input(heads > 0, shapes.where(), ": '", bias, "' is empty");
  return {{"architectures", {"T5EncoderModel"}},
          {"d_ff", shapes.size(first + "1.DenseReluDense.wi_0.weight", 0)},
          {"d_kv", shapes.size(first + "0.SelfAttention.q.weight", 0) / heads},
          {"d_model", shapes.size("shared.weight", 1)},
          {"decoder_start_token_id", 0},
          {"dense_act_fn", "gelu_new"},
          {"dropout_rate", 0.1},
          {"eos_token_id", 1},
          {"feed_forward_proj", "gated-gelu"},
          {"initializer_factor", 1.0},
          {"is_encoder_decoder", true},
          {"is_gated_act", true},
          {"layer_norm_epsilon", 1e-06},
          {"model_type", "t5"},
          {"num_decoder_layers", shapes.count("encoder.block.")},
          {"num_heads", heads},
          {"num_layers", shapes.count("encoder.block.")},
          {"output_past", true},
          {"pad_token_id", 0},
          {"relative_attention_max_distance", 128},
          {"relative_attention_num_buckets", shapes.size(bias, 0)},
          {"tie_word_embeddings", false},
          {"use_cache", true},
          {"vocab_size", shapes.size("shared.weight", 0)}};
}

Json sd3_config(const Shapes& shapes) {
  const int64_t width = shapes.size("pos_embed.proj.weight", 0);
  const int64_t patch = shapes.size("pos_embed.proj.weight", 2);
  const std::string norm = "transformer_blocks.0.attn.norm_q.weight";
  const int64_t head_dim = shapes.has(norm) ? shapes.size(norm, 0) : 64;
  shapes.expect_multiple(width, head_dim, "number of attention heads");
  const int64_t layers = shapes.count("transformer_blocks.");
  std::vector<int64_t> dual;
  for (int64_t i = 0; i < layers; ++i) {
    if (shapes.has(concat("transformer_blocks.", i, ".attn2.to_q.weight"))) dual.push_back(i);
  }
  const int64_t positions = shapes.size("pos_embed.pos_embed", 1);
  Json config = {{"_class_name", "SD3Transformer2DModel"},
                 {"attention_head_dim", head_dim},
                 {"caption_projection_dim", shapes.size("context_embedder.weight", 0)},
                 {"in_channels", shapes.size("pos_embed.proj.weight", 1)},
                 {"joint_attention_dim", shapes.size("context_embedder.weight", 1)},
                 {"num_attention_heads", width / head_dim},
                 {"num_layers", layers},
                 {"out_channels", shapes.size("proj_out.weight", 0) / (patch * patch)},
                 {"patch_size", patch},
                 {"pooled_projection_dim", shapes.size("time_text_embed.text_embedder.linear_1.weight", 1)},
                 {"pos_embed_max_size", std::llround(std::sqrt(static_cast<double>(positions)))},
                 {"sample_size", 128}};
  if (shapes.has(norm)) config["qk_norm"] = "rms_norm";
  if (!dual.empty()) config["dual_attention_layers"] = dual;
  return config;
}

Json flux_config(const Shapes& shapes) {
  const int64_t head_dim = shapes.size("transformer_blocks.0.attn.norm_q.weight", 0);
  const int64_t width = shapes.size("x_embedder.weight", 0);
  check_input(head_dim == 128, shapes.where(),
              ": shapes do not tell how rotary positions are shared between axes, and "
              "the published 16 + 56 + 56 do not fit heads of width ",
              head_dim, "; give the model's configs with --config FOLDER");
  shapes.expect_multiple(width, head_dim, "number of attention heads");
  const int64_t in_channels = shapes.size("x_embedder.weight", 1);
  const int64_t out_channels = shapes.size("proj_out.weight", 0);
  return {{"_class_name", "FluxTransformer2DModel"},
          {"attention_head_dim", head_dim},
          {"axes_dims_rope", {16, 56, 56}},
          {"guidance_embeds", shapes.has("time_text_embed.guidance_embedder.linear_1.weight")},
          {"in_channels", in_channels},
          {"joint_attention_dim", shapes.size("context_embedder.weight", 1)},
          {"num_attention_heads", width / head_dim},
          {"num_layers", shapes.count("transformer_blocks.")},
          {"num_single_layers", shapes.count("single_transformer_blocks.")},
          {"out_channels", in_channels == out_channels ? Json() : Json(out_channels)},
          {"patch_size", 1},
          {"pooled_projection_dim", shapes.size("time_text_embed.text_embedder.linear_1.weight", 1)}};
}

}  // namespace

Json infer_config(Family family, const ComponentLayout& component, const TensorSources& tensors,
                  const std::string& prediction_type, const std::string& where) {
  const Shapes shapes(tensors, where + " (" + component.folder + ")");
  switch (component.kind) {
    case NetworkKind::kUnet: return unet_config(family, shapes, prediction_type);
    case NetworkKind::kSd3Transformer: return sd3_config(shapes);
    case NetworkKind::kFluxTransformer: return flux_config(shapes);
    case NetworkKind::kAutoencoder: return autoencoder_config(family, shapes);
    case NetworkKind::kClip:
    case NetworkKind::kOpenClip: return clip_config(family, component, shapes);
    case NetworkKind::kT5: return t5_config(shapes);
  }
  return {};
}

}  // namespace prefusion::layouts

#include "unet/pixart_transformer.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "nn/activation_checkpoint.h"
#include "nn/ada_layer_norm.h"

namespace prefusion::unet {
namespace {

constexpr double kNormOutEps = 1e-6;

// 0 for tokens to attend to, -10000 for the others: [B, L] bool -> [B, 1, 1, L], or undefined from undefined.
at::Tensor score_bias(const at::Tensor& mask, at::ScalarType dtype) {
  if (!mask.defined()) return {};
  return ((1 - mask.to(dtype)) * -10000.0).unsqueeze(1).unsqueeze(1);
}

std::string shape_of(const at::Tensor& tensor) {
  return tensor.defined() ? shape_text(tensor.sizes()) : "none";
}

}  // namespace

PixArtTransformer2DModel::PixArtTransformer2DModel(const PixArtConfig& config) : config_(config) {
  const int64_t dim = config.inner_dim();
  scale_shift_table = register_parameter("scale_shift_table", at::empty({2, dim}, at::kFloat));
  pos_embed = register_module("pos_embed", nn::PatchEmbedding(nn::PatchEmbeddingOptions{
                                               .in_channels = config.in_channels,
                                               .patch_size = config.patch_size,
                                               .positions = {.dim = dim,
                                                             .base_size = config.sample_size / config.patch_size,
                                                             .interpolation_scale = config.interpolation_scale}}));
  transformer_blocks = register_module("transformer_blocks", std::make_shared<nn::ModuleList<PixArtBlock>>());
  for (int64_t i = 0; i < config.num_layers; ++i) transformer_blocks->push_back(PixArtBlock(config));
  proj_out = register_module("proj_out", nn::Linear(dim, config.patch_size * config.patch_size * config.out_channels));
  adaln_single = register_module("adaln_single", AdaLayerNormSingle(dim, config.use_additional_conditions));
  if (config.caption_channels > 0) {
    caption_projection = register_module(
        "caption_projection", nn::TimestepEmbedding(nn::TimestepEmbeddingOptions{
                                  .in_features = config.caption_channels,
                                  .out_features = dim,
                                  .activation = nn::activation_by_name("gelu_pytorch_tanh", "caption_projection")}));
  }
  info_ = DenoiserInfo{.class_name = "PixArtTransformer2DModel",
                       .component = "transformer",
                       .in_channels = config.in_channels,
                       .out_channels = config.out_channels,
                       .sample_size = config.sample_size,
                       .sample_width = config.sample_size,
                       .size_multiple = config.patch_size,
                       .cross_attention_dim = config.text_dim(),
                       .uses_time_ids = config.use_additional_conditions};
}

void PixArtTransformer2DModel::check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const {
  const int64_t patch = config_.patch_size;
  check_input(noisy_latents.dim() == 4 && noisy_latents.size(1) == config_.in_channels &&
                  noisy_latents.size(2) % patch == 0 && noisy_latents.size(3) % patch == 0,
              "PixArtTransformer2DModel: expected noisy_latents [B, ", config_.in_channels,
              ", H, W] with H and W multiples of ", patch, ", found ", shape_of(noisy_latents));
  const int64_t batch = noisy_latents.size(0);
  const at::Tensor& states = conditioning.encoder_hidden_states;
  check_input(states.defined() && states.dim() == 3 && states.size(0) == batch && states.size(2) == config_.text_dim(),
              "PixArtTransformer2DModel: expected encoder_hidden_states [", batch, ", L, ", config_.text_dim(),
              "], found ", shape_of(states));
  const at::Tensor& mask = conditioning.encoder_mask;
  check_input(!mask.defined() || mask.sizes() == states.sizes().slice(0, 2),
              "PixArtTransformer2DModel: expected encoder_mask ", shape_text(states.sizes().slice(0, 2)), ", found ",
              shape_of(mask));
  const at::Tensor& sizes = conditioning.time_ids;
  check_input(config_.use_additional_conditions || !sizes.defined(),
              "PixArtTransformer2DModel: this model takes no time_ids (use_additional_conditions is false), found ",
              shape_of(sizes));
  check_input(!config_.use_additional_conditions || (sizes.defined() && sizes.sizes() == at::IntArrayRef({batch, 3})),
              "PixArtTransformer2DModel: this model needs time_ids [", batch,
              ", 3] (use_additional_conditions is true): height, width and height / width; found ", shape_of(sizes));
}

at::Tensor PixArtTransformer2DModel::forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                             const Conditioning& conditioning) {
  check_inputs(noisy_latents, conditioning);
  const at::Device device = proj_out->weight.device();
  const at::ScalarType dtype = proj_out->weight.scalar_type();
  const at::Tensor per_item = timesteps.to(device).reshape(-1).expand(noisy_latents.size(0));
  announce_timesteps(per_item);

  at::Tensor tokens = pos_embed->forward(noisy_latents.to(dtype));  // [B, N, D]
  const PixArtModulation modulation = adaln_single->forward(per_item, conditioning.time_ids);
  at::Tensor text = conditioning.encoder_hidden_states.to(dtype);
  if (caption_projection) text = caption_projection->forward(text);
  const at::Tensor text_bias = score_bias(conditioning.encoder_mask, dtype);
  const at::Tensor& user_states = conditioning.user_states;
  for (PixArtBlock& block : *transformer_blocks) {
    const auto run = [block, text_bias](const std::vector<at::Tensor>& x) mutable {
      return block->forward(x[0], {.modulations = x[1],
                                   .text = x[2],
                                   .text_bias = text_bias,
                                   .user_states = x.size() > 3 ? x[3] : at::Tensor()});
    };
    tokens = nn::run_block(*block, run, {tokens, modulation.modulations, text, user_states}, recompute_);
  }

  const std::vector<at::Tensor> shift_scale =
      (scale_shift_table + modulation.embedding.unsqueeze(1)).chunk(2, /*dim=*/1);
  const nn::Modulation last{.shift = shift_scale[0], .scale = shift_scale[1]};
  tokens = proj_out->forward(last.apply_to_norm(tokens, kNormOutEps));
  return nn::join_patches(tokens, noisy_latents.size(2) / config_.patch_size,
                          noisy_latents.size(3) / config_.patch_size, config_.patch_size);
}

void PixArtTransformer2DModel::init_own_weights(at::Generator generator) {
  init_scale_shift_table(scale_shift_table, generator);
}

void PixArtTransformer2DModel::complete_weights(TensorMap& weights) const {
  weights.erase("caption_projection.y_embedding");
}

}  // namespace prefusion::unet

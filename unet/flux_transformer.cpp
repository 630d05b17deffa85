#include "unet/flux_transformer.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "nn/activation_checkpoint.h"

namespace prefusion::unet {
namespace {

constexpr int64_t kPack = 2;  // latent pixels of a token, each way

// [B, C, H, W] -> [B, H / 2 * W / 2, 4 C]: channel, then row and column in the square.
at::Tensor pack_latents(const at::Tensor& latents) {
  return latents.unflatten(3, {-1, kPack})
      .unflatten(2, {-1, kPack})    // [B, C, h, 2, w, 2]
      .permute({0, 2, 4, 1, 3, 5})  // [B, h, w, C, 2, 2]
      .flatten(/*start_dim=*/3)
      .flatten(/*start_dim=*/1, /*end_dim=*/2);
}

// [B, h * w, 4 C] -> [B, C, 2 h, 2 w]
at::Tensor unpack_latents(const at::Tensor& tokens, int64_t height, int64_t width) {
  return tokens.unflatten(2, {-1, kPack, kPack})
      .unflatten(1, {height / kPack, width / kPack})  // [B, h, w, C, 2, 2]
      .permute({0, 3, 1, 4, 2, 5})                    // [B, C, h, 2, w, 2]
      .reshape({tokens.size(0), -1, height, width});
}

// Positions [L + N, 3] of all tokens: the prompt's are at zero, the picture's at (0, row, column).
at::Tensor token_positions(int64_t prompt_tokens, int64_t rows, int64_t columns, at::Device device) {
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(device);
  const at::Tensor positions = at::zeros({prompt_tokens + rows * columns, 3}, fp32);
  const at::Tensor picture = positions.narrow(0, prompt_tokens, rows * columns).view({rows, columns, 3});
  picture.select(2, 1).copy_(at::arange(rows, fp32).unsqueeze(1));
  picture.select(2, 2).copy_(at::arange(columns, fp32).unsqueeze(0));
  return positions;
}

}  // namespace

FluxTransformer2DModel::FluxTransformer2DModel(const FluxConfig& config) : config_(config) {
  const int64_t dim = config.inner_dim();
  const int64_t token_out = config.patch_size * config.patch_size * config.out_channels;
  time_text_embed = register_module("time_text_embed",
                                    nn::TimeTextEmbedding(dim, config.pooled_projection_dim, config.guidance_embeds));
  context_embedder = register_module("context_embedder", nn::Linear(config.joint_attention_dim, dim));
  x_embedder = register_module("x_embedder", nn::Linear(config.in_channels, dim));
  transformer_blocks = register_module("transformer_blocks", std::make_shared<nn::ModuleList<FluxDoubleBlock>>());
  for (int64_t i = 0; i < config.num_layers; ++i) {
    transformer_blocks->push_back(FluxDoubleBlock(config.num_heads, config.head_dim));
  }
  single_transformer_blocks =
      register_module("single_transformer_blocks", std::make_shared<nn::ModuleList<FluxSingleBlock>>());
  for (int64_t i = 0; i < config.num_single_layers; ++i) {
    single_transformer_blocks->push_back(FluxSingleBlock(config.num_heads, config.head_dim));
  }
  norm_out = register_module("norm_out", nn::AdaLayerNormContinuous(dim, dim));
  proj_out = register_module("proj_out", nn::Linear(dim, token_out));

  info_ = DenoiserInfo{.class_name = "FluxTransformer2DModel",
                       .component = "transformer",
                       .in_channels = config.in_channels / (kPack * kPack),
                       .out_channels = token_out / (kPack * kPack),
                       .sample_size = 128,  // no key of the config: 1024 pixels
                       .sample_width = 128,
                       .size_multiple = kPack,
                       .cross_attention_dim = config.joint_attention_dim,
                       .pooled_dim = config.pooled_projection_dim,
                       .uses_pooled = true,
                       .uses_guidance = config.guidance_embeds,
                       .is_flow = true};
}

void FluxTransformer2DModel::check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const {
  const auto shape_of = [](const at::Tensor& x) { return x.defined() ? shape_text(x.sizes()) : "none"; };
  check_input(noisy_latents.dim() == 4 && noisy_latents.size(1) == info_.in_channels &&
                  noisy_latents.size(2) % kPack == 0 && noisy_latents.size(3) % kPack == 0,
              "FluxTransformer2DModel: expected noisy_latents [B, ", info_.in_channels,
              ", H, W] with even H and W, found ", shape_of(noisy_latents));
  const int64_t batch = noisy_latents.size(0);
  const at::Tensor& states = conditioning.encoder_hidden_states;
  check_input(
      states.defined() && states.dim() == 3 && states.size(0) == batch && states.size(2) == config_.joint_attention_dim,
      "FluxTransformer2DModel: expected encoder_hidden_states [", batch, ", L, ", config_.joint_attention_dim,
      "], found ", shape_of(states));
  const at::Tensor& pooled = conditioning.pooled;
  check_input(pooled.defined() && pooled.sizes() == at::IntArrayRef({batch, config_.pooled_projection_dim}),
              "FluxTransformer2DModel: expected pooled text states [", batch, ", ", config_.pooled_projection_dim,
              "], found ", shape_of(pooled));
  const at::Tensor& guidance = conditioning.guidance;
  check_input(config_.guidance_embeds || !guidance.defined(),
              "FluxTransformer2DModel: this model takes no guidance scale (guidance_embeds is false), found ",
              shape_of(guidance));
  check_input(!config_.guidance_embeds || (guidance.defined() && guidance.sizes() == at::IntArrayRef({batch})),
              "FluxTransformer2DModel: this model needs a guidance scale an item (guidance_embeds is true): expected [",
              batch, "], found ", shape_of(guidance));
}

at::Tensor FluxTransformer2DModel::embed_conditions(const at::Tensor& timesteps, const Conditioning& conditioning) {
  const at::ScalarType dtype = x_embedder->weight.scalar_type();
  // diffusers' pipeline divides by 1000 and its model multiplies again, both in the model's dtype.
  const at::Tensor sigmas = timesteps.to(dtype) / 1000;
  at::Tensor guidance;
  if (config_.guidance_embeds) guidance = conditioning.guidance.to(dtype) * 1000;
  return time_text_embed->forward(sigmas * 1000, conditioning.pooled.to(dtype), guidance);
}

at::Tensor FluxTransformer2DModel::run_blocks(FluxStreams streams, const at::Tensor& embedding,
                                              const nn::RotaryEmbedding& rotary) {
  using Tensors = std::vector<at::Tensor>;
  for (FluxDoubleBlock& block : *transformer_blocks) {
    const nn::BlockFunction run = [block, rotary](const Tensors& x) mutable {
      const FluxStreams result = block->forward({.image = x[0], .prompt = x[1]}, x[2], rotary);
      return Tensors{result.image, result.prompt};
    };
    const Tensors outputs = nn::run_block(*block, run, {streams.image, streams.prompt, embedding}, recompute_);
    streams = {.image = outputs[0], .prompt = outputs[1]};
  }
  at::Tensor tokens = at::cat({streams.prompt, streams.image}, /*dim=*/1);
  for (FluxSingleBlock& block : *single_transformer_blocks) {
    const auto run = [block, rotary](const Tensors& x) mutable { return block->forward(x[0], x[1], rotary); };
    tokens = nn::run_block(*block, run, {tokens, embedding}, recompute_);
  }
  return tokens;
}

at::Tensor FluxTransformer2DModel::forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                           const Conditioning& conditioning) {
  check_inputs(noisy_latents, conditioning);
  const int64_t height = noisy_latents.size(2);
  const int64_t width = noisy_latents.size(3);
  const at::Device device = x_embedder->weight.device();
  const at::ScalarType dtype = x_embedder->weight.scalar_type();
  const at::Tensor per_item = timesteps.to(device).reshape(-1).expand(noisy_latents.size(0));
  announce_timesteps(per_item);

  FluxStreams streams{.image = x_embedder->forward(pack_latents(noisy_latents.to(dtype))),
                      .prompt = context_embedder->forward(conditioning.encoder_hidden_states.to(dtype))};
  const int64_t prompt_tokens = streams.prompt.size(1);
  const at::Tensor embedding = embed_conditions(per_item, conditioning);
  const nn::RotaryEmbedding rotary = nn::rotary_embedding(
      token_positions(prompt_tokens, height / kPack, width / kPack, device), config_.axes_dims_rope);
  const at::Tensor tokens = run_blocks(std::move(streams), embedding, rotary);
  const at::Tensor picture = tokens.narrow(1, prompt_tokens, tokens.size(1) - prompt_tokens);
  return unpack_latents(proj_out->forward(norm_out->forward(picture, embedding)), height, width);
}

}  // namespace prefusion::unet

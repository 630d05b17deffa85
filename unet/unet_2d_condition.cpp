#include "unet/unet_2d_condition.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::unet {
namespace {

nn::Conv2d same_size_conv(int64_t in_channels, int64_t out_channels, int64_t kernel) {
  return nn::Conv2d(nn::Conv2dOptions{in_channels, out_channels, kernel, 1, (kernel - 1) / 2});
}

UNetStageConfig mid_stage(const UNetConfig& config) {
  UNetStageConfig stage = config.down.back();
  stage.has_attention = config.mid == MidBlock::kCrossAttention;
  stage.transformer_layers = {config.mid_transformer_layers};
  stage.only_cross_attention = false;
  return stage;
}

}  // namespace

UNet2DConditionModel::UNet2DConditionModel(const UNetConfig& config) : config_(config) {
  const int64_t first = config.down.front().channels;
  const size_t stages = config.down.size();
  conv_in = register_module("conv_in", same_size_conv(config.in_channels, first, config.conv_in_kernel));
  time_embedding = register_module("time_embedding", nn::TimestepEmbedding(nn::TimestepEmbeddingOptions{
                                                         .in_features = first,
                                                         .out_features = config.time_embedding_dim,
                                                         .activation = config.activation,
                                                         .post_activation = config.timestep_post_activation}));
  if (config.has_text_time) {
    add_embedding =
        register_module("add_embedding", nn::TimestepEmbedding(nn::TimestepEmbeddingOptions{
                                             .in_features = config.addition_input_dim,
                                             .out_features = config.time_embedding_dim,
                                             .activation = nn::activation_by_name("silu", "add_embedding")}));
  }
  down_blocks = register_module("down_blocks", std::make_shared<nn::ModuleList<std::shared_ptr<DownBlock>>>());
  for (size_t i = 0; i < stages; ++i) {
    const int64_t in_channels = config.down[i == 0 ? 0 : i - 1].channels;
    down_blocks->push_back(std::make_shared<DownBlock>(config, config.down[i], in_channels, i + 1 < stages));
  }
  if (config.mid != MidBlock::kNone) {
    mid_block = register_module("mid_block", std::make_shared<MidStage>(config, mid_stage(config)));
  }
  up_blocks = register_module("up_blocks", std::make_shared<nn::ModuleList<std::shared_ptr<UpBlock>>>());
  for (size_t i = 0; i < stages; ++i) {
    const int64_t previous = config.up[i == 0 ? 0 : i - 1].channels;
    const int64_t skip = config.up[std::min(i + 1, stages - 1)].channels;
    up_blocks->push_back(std::make_shared<UpBlock>(config, config.up[i], previous, skip, i + 1 < stages));
  }
  conv_norm_out = register_module("conv_norm_out", nn::GroupNorm(config.norm_num_groups, first, config.norm_eps));
  conv_out = register_module("conv_out", same_size_conv(first, config.out_channels, config.conv_out_kernel));

  info_ = DenoiserInfo{.class_name = "UNet2DConditionModel",
                       .in_channels = config.in_channels,
                       .out_channels = config.out_channels,
                       .sample_size = config.sample_height,
                       .sample_width = config.sample_width,
                       .cross_attention_dim = config.cross_attention_dim,
                       .uses_pooled = config.has_text_time,
                       .uses_time_ids = config.has_text_time};
}

int64_t UNet2DConditionModel::num_time_ids(int64_t pooled_width) const {
  if (!config_.has_text_time) return 0;
  const int64_t of_ids = config_.addition_input_dim - pooled_width;
  check_input(of_ids > 0 && of_ids % config_.addition_time_embed_dim == 0,
              "UNet2DConditionModel: 'projection_class_embeddings_input_dim' is ", config_.addition_input_dim,
              ", but pooled text states of width ", pooled_width,
              " leave no whole number of 'addition_time_embed_dim' ", config_.addition_time_embed_dim);
  return of_ids / config_.addition_time_embed_dim;
}

void UNet2DConditionModel::check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const {
  check_input(noisy_latents.dim() == 4 && noisy_latents.size(1) == config_.in_channels,
              "UNet2DConditionModel: expected noisy_latents [B, ", config_.in_channels, ", H, W], found ",
              shape_text(noisy_latents.sizes()));
  const at::Tensor& states = conditioning.encoder_hidden_states;
  check_input(states.defined() && states.dim() == 3 && states.size(0) == noisy_latents.size(0) &&
                  states.size(2) == config_.cross_attention_dim,
              "UNet2DConditionModel: expected encoder_hidden_states [", noisy_latents.size(0), ", L, ",
              config_.cross_attention_dim, "], found ", states.defined() ? shape_text(states.sizes()) : "none");
}

at::Tensor UNet2DConditionModel::embed_time(const at::Tensor& timesteps, const Conditioning& conditioning,
                                            int64_t batch) {
  const at::ScalarType dtype = conv_in->weight.scalar_type();
  const nn::SinusoidalOptions sinusoids{.dim = config_.down.front().channels,
                                        .flip_sin_to_cos = config_.flip_sin_to_cos,
                                        .freq_shift = config_.freq_shift};
  const at::Tensor per_item = timesteps.to(conv_in->weight.device()).reshape(-1).expand(batch);
  at::Tensor embedding = time_embedding->forward(nn::sinusoidal_embedding(per_item, sinusoids).to(dtype));
  if (!config_.has_text_time) return embedding;

  const at::Tensor& pooled = conditioning.pooled;
  check_input(pooled.defined() && conditioning.time_ids.defined(),
              "UNet2DConditionModel: this model needs pooled text states and time_ids");
  nn::SinusoidalOptions id_sinusoids = sinusoids;
  id_sinusoids.dim = config_.addition_time_embed_dim;
  const at::Tensor ids = nn::sinusoidal_embedding(conditioning.time_ids.flatten(), id_sinusoids);
  const at::Tensor added = at::cat({pooled, ids.reshape({pooled.size(0), -1})}, /*dim=*/1);
  check_input(added.size(1) == config_.addition_input_dim && added.size(0) == batch, "UNet2DConditionModel: pooled ",
              shape_text(pooled.sizes()), " and time_ids ", shape_text(conditioning.time_ids.sizes()), " give ",
              shape_text(added.sizes()), ", expected [", batch, ", ", config_.addition_input_dim, "]");
  return embedding + add_embedding->forward(added.to(dtype));
}

at::Tensor UNet2DConditionModel::forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                         const Conditioning& conditioning) {
  check_inputs(noisy_latents, conditioning);
  announce_timesteps(timesteps.to(noisy_latents.device()).reshape(-1).expand(noisy_latents.size(0)));
  const at::ScalarType dtype = conv_in->weight.scalar_type();
  at::Tensor hidden_states = noisy_latents.to(dtype);
  if (config_.center_input_sample) hidden_states = 2 * hidden_states - 1;

  at::Tensor time = embed_time(timesteps, conditioning, noisy_latents.size(0));
  if (config_.time_activation) time = config_.time_activation(time);
  const PassInputs inputs{.activated_time = config_.activation(time),
                          .encoder_hidden_states = conditioning.encoder_hidden_states.to(dtype),
                          .user_states = conditioning.user_states,
                          .recompute = recompute_};

  hidden_states = conv_in->forward(hidden_states);
  std::vector<at::Tensor> skips = {hidden_states};
  for (auto& block : *down_blocks) hidden_states = block->forward(hidden_states, inputs, skips);
  if (mid_block) hidden_states = mid_block->forward(hidden_states, inputs);
  for (auto& block : *up_blocks) hidden_states = block->forward(hidden_states, inputs, skips);
  return conv_out->forward(conv_norm_out->forward_activated(hidden_states, config_.activation));
}

}  // namespace prefusion::unet

#include "unet/sd3_transformer.h"

#include <ATen/ATen.h>

#include <vector>

#include "core/error.h"
#include "nn/activation_checkpoint.h"

namespace prefusion::unet {

SD3Transformer2DModel::SD3Transformer2DModel(const SD3Config& config) : config_(config) {
  const int64_t dim = config.inner_dim();
  const int64_t patch = config.patch_size;
  pos_embed = register_module("pos_embed", nn::PatchEmbedding(nn::PatchEmbeddingOptions{
                                               .in_channels = config.in_channels,
                                               .patch_size = patch,
                                               .positions = {.dim = dim, .base_size = config.sample_size / patch},
                                               .max_size = config.pos_embed_max_size}));
  time_text_embed = register_module("time_text_embed", nn::TimeTextEmbedding(dim, config.pooled_projection_dim));
  context_embedder = register_module("context_embedder", nn::Linear(config.joint_attention_dim, dim));
  transformer_blocks =
      register_module("transformer_blocks", std::make_shared<nn::ModuleList<std::shared_ptr<SD3Block>>>());
  for (size_t i = 0; i < config.is_dual.size(); ++i) {
    const bool is_last = i + 1 == config.is_dual.size();
    transformer_blocks->push_back(std::make_shared<SD3Block>(config, config.is_dual[i], is_last));
  }
  norm_out = register_module("norm_out", nn::AdaLayerNormContinuous(dim, dim));
  proj_out = register_module("proj_out", nn::Linear(dim, patch * patch * config.out_channels));

  info_ = DenoiserInfo{.class_name = "SD3Transformer2DModel",
                       .component = "transformer",
                       .in_channels = config.in_channels,
                       .out_channels = config.out_channels,
                       .sample_size = config.sample_size,
                       .sample_width = config.sample_size,
                       .size_multiple = patch,
                       .cross_attention_dim = config.joint_attention_dim,
                       .pooled_dim = config.pooled_projection_dim,
                       .uses_pooled = true,
                       .is_flow = true};
}

void SD3Transformer2DModel::complete_weights(TensorMap& weights) const {
  constexpr const char* kPositions = "pos_embed.pos_embed";
  if (config_.pos_embed_max_size > 0 && !weights.contains(kPositions)) {
    weights.emplace(kPositions, pos_embed->position_grid());
  }
}

void SD3Transformer2DModel::check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const {
  check_input(noisy_latents.dim() == 4 && noisy_latents.size(1) == config_.in_channels,
              "SD3Transformer2DModel: expected noisy_latents [B, ", config_.in_channels, ", H, W], found ",
              shape_text(noisy_latents.sizes()));
  const int64_t batch = noisy_latents.size(0);
  const at::Tensor& states = conditioning.encoder_hidden_states;
  check_input(
      states.defined() && states.dim() == 3 && states.size(0) == batch && states.size(2) == config_.joint_attention_dim,
      "SD3Transformer2DModel: expected encoder_hidden_states [", batch, ", L, ", config_.joint_attention_dim,
      "], found ", states.defined() ? shape_text(states.sizes()) : "none");
  const at::Tensor& pooled = conditioning.pooled;
  check_input(pooled.defined() && pooled.dim() == 2 && pooled.size(0) == batch &&
                  pooled.size(1) == config_.pooled_projection_dim,
              "SD3Transformer2DModel: expected pooled [", batch, ", ", config_.pooled_projection_dim, "], found ",
              pooled.defined() ? shape_text(pooled.sizes()) : "none");
}

at::Tensor SD3Transformer2DModel::forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                          const Conditioning& conditioning) {
  check_inputs(noisy_latents, conditioning);
  const at::Tensor per_item = timesteps.to(noisy_latents.device()).reshape(-1).expand(noisy_latents.size(0));
  announce_timesteps(per_item);
  const at::ScalarType dtype = proj_out->weight.scalar_type();
  const at::Tensor embedding = time_text_embed->forward(per_item, conditioning.pooled.to(dtype));  // [B, D]

  at::Tensor hidden_states = pos_embed->forward(noisy_latents.to(dtype));                        // [B, N, D]
  at::Tensor context = context_embedder->forward(conditioning.encoder_hidden_states.to(dtype));  // [B, L, D]
  for (const std::shared_ptr<SD3Block>& block : *transformer_blocks) {
    const nn::BlockFunction function = [&block = *block](const std::vector<at::Tensor>& x) {
      const nn::JointStates states = block.forward(x[0], x[1], x[2]);
      std::vector<at::Tensor> outputs = {states.hidden_states};
      if (states.context.defined()) outputs.push_back(states.context);
      return outputs;
    };
    const std::vector<at::Tensor> outputs =
        nn::run_block(*block, function, {hidden_states, context, embedding}, recompute_);
    hidden_states = outputs[0];
    if (outputs.size() > 1) context = outputs[1];
  }
  const at::Tensor tokens = proj_out->forward(norm_out->forward(hidden_states, embedding));
  const int64_t patch = config_.patch_size;
  return nn::join_patches(tokens, noisy_latents.size(2) / patch, noisy_latents.size(3) / patch, patch);
}

}  // namespace prefusion::unet

#include "unet/dit_transformer.h"

#include <ATen/ATen.h>

#include <array>

#include "core/error.h"
#include "nn/activation_checkpoint.h"
#include "nn/ada_layer_norm.h"

namespace prefusion::unet {
namespace {

std::string shape_of(const at::Tensor& tensor) {
  return tensor.defined() ? shape_text(tensor.sizes()) : "none";
}

}  // namespace

DiTTransformer2DModel::DiTTransformer2DModel(const DitConfig& config) : config_(config) {
  const int64_t dim = config.inner_dim();
  pos_embed = register_module("pos_embed",
                              nn::PatchEmbedding(nn::PatchEmbeddingOptions{
                                  .in_channels = config.in_channels,
                                  .patch_size = config.patch_size,
                                  .positions = {.dim = dim, .base_size = config.sample_size / config.patch_size}}));
  transformer_blocks = register_module("transformer_blocks", std::make_shared<nn::ModuleList<DitBlock>>());
  for (int64_t i = 0; i < config.num_layers; ++i) transformer_blocks->push_back(DitBlock(config));
  proj_out_1 = register_module("proj_out_1", nn::Linear(dim, 2 * dim));
  proj_out_2 =
      register_module("proj_out_2", nn::Linear(dim, config.patch_size * config.patch_size * config.out_channels));
  info_ = DenoiserInfo{.class_name = "DiTTransformer2DModel",
                       .component = "transformer",
                       .in_channels = config.in_channels,
                       .out_channels = config.out_channels,
                       .sample_size = config.sample_size,
                       .sample_width = config.sample_size,
                       .size_multiple = config.patch_size,
                       .cross_attention_dim = config.num_classes + 1,
                       .is_class_conditional = true};
}

void DiTTransformer2DModel::check_inputs(const at::Tensor& noisy_latents, const Conditioning& conditioning) const {
  const int64_t patch = config_.patch_size;
  check_input(noisy_latents.dim() == 4 && noisy_latents.size(1) == config_.in_channels &&
                  noisy_latents.size(2) % patch == 0 && noisy_latents.size(3) % patch == 0,
              "DiTTransformer2DModel: expected noisy_latents [B, ", config_.in_channels,
              ", H, W] with H and W multiples of ", patch, ", found ", shape_of(noisy_latents));
  const std::array<int64_t, 3> expected = {noisy_latents.size(0), 1, config_.num_classes + 1};
  const at::Tensor& classes = conditioning.encoder_hidden_states;
  check_input(classes.defined() && classes.sizes() == at::IntArrayRef(expected),
              "DiTTransformer2DModel: expected classes ", shape_text(expected), ", found ", shape_of(classes));
  check_input(!conditioning.time_ids.defined(), "DiTTransformer2DModel: this model takes no time_ids, found ",
              shape_of(conditioning.time_ids));
}

at::Tensor DiTTransformer2DModel::forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                          const Conditioning& conditioning) {
  check_inputs(noisy_latents, conditioning);
  const at::Device device = proj_out_2->weight.device();
  const at::ScalarType dtype = proj_out_2->weight.scalar_type();
  const at::Tensor per_item = timesteps.to(device).reshape(-1).expand(noisy_latents.size(0));
  announce_timesteps(per_item);

  at::Tensor tokens = pos_embed->forward(noisy_latents.to(dtype));                     // [B, N, D]
  const at::Tensor classes = conditioning.encoder_hidden_states.squeeze(1).to(dtype);  // [B, num_classes + 1]
  for (DitBlock& block : *transformer_blocks) {
    const auto run = [block, per_item](const std::vector<at::Tensor>& x) mutable {
      return block->forward(x[0], per_item, x[1]);
    };
    tokens = nn::run_block(*block, run, {tokens, classes}, recompute_);
  }

  // The output layer hears the embedding of the first block.
  const at::Tensor embedding = (*transformer_blocks)[0]->norm1->emb->forward(per_item, classes);
  const std::vector<at::Tensor> parts = proj_out_1->forward(at::silu(embedding)).unsqueeze(1).chunk(2, /*dim=*/2);
  const nn::Modulation last{.shift = parts[0], .scale = parts[1]};
  tokens = proj_out_2->forward(last.apply_to_norm(tokens));
  return nn::join_patches(tokens, noisy_latents.size(2) / config_.patch_size,
                          noisy_latents.size(3) / config_.patch_size, config_.patch_size);
}

}  // namespace prefusion::unet

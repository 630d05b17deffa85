#include "vae/coder_blocks.h"

#include <ATen/ATen.h>

#include "nn/activation_checkpoint.h"

namespace prefusion::vae {
namespace {

constexpr double kNormEps = 1e-6;  // no config key: the same in every published autoencoder

nn::ResnetBlock make_resnet(const AutoencoderKLConfig& config, int64_t in_channels, int64_t out_channels) {
  return nn::ResnetBlock(nn::ResnetBlockOptions{.in_channels = in_channels,
                                                .out_channels = out_channels,
                                                .norm_num_groups = config.norm_num_groups,
                                                .norm_eps = kNormEps,
                                                .activation = config.activation});
}

at::Tensor run_resnet(nn::ResnetBlock block, const at::Tensor& hidden_states, bool recompute) {
  const auto run = [block](const std::vector<at::Tensor>& x) mutable { return block->forward(x[0]); };
  return nn::run_block(*block, run, {hidden_states}, recompute);
}

}  // namespace

CoderStage::CoderStage(const AutoencoderKLConfig& config, int64_t in_channels, int64_t out_channels, int64_t num_layers,
                       Resize resize) {
  resnets = register_module("resnets", std::make_shared<nn::ModuleList<nn::ResnetBlock>>());
  for (int64_t i = 0; i < num_layers; ++i) {
    resnets->push_back(make_resnet(config, i == 0 ? in_channels : out_channels, out_channels));
  }
  if (resize == Resize::kHalve) {
    downsamplers = register_module("downsamplers", std::make_shared<nn::ModuleList<nn::Downsample2D>>());
    downsamplers->push_back(nn::Downsample2D(out_channels, /*padding=*/0));
  } else if (resize == Resize::kDouble) {
    upsamplers = register_module("upsamplers", std::make_shared<nn::ModuleList<nn::Upsample2D>>());
    upsamplers->push_back(nn::Upsample2D(out_channels));
  }
}

at::Tensor CoderStage::forward(at::Tensor hidden_states, bool recompute) {
  for (nn::ResnetBlock& block : *resnets) hidden_states = run_resnet(block, hidden_states, recompute);
  if (downsamplers) return (*downsamplers)[0]->forward(hidden_states);
  if (!upsamplers) return hidden_states;
  return (*upsamplers)[0]->forward(hidden_states, 2 * hidden_states.size(2), 2 * hidden_states.size(3));
}

CoderMidBlock::CoderMidBlock(const AutoencoderKLConfig& config, int64_t channels) {
  if (config.mid_block_add_attention) {
    attentions = register_module("attentions", std::make_shared<nn::ModuleList<nn::Attention>>());
    attentions->push_back(nn::Attention(nn::AttentionOptions{.query_dim = channels,
                                                             .num_heads = 1,
                                                             .head_dim = channels,
                                                             .has_qkv_bias = true,
                                                             .norm_num_groups = config.norm_num_groups,
                                                             .norm_eps = kNormEps,
                                                             .has_residual = true}));
  }
  resnets = register_module("resnets", std::make_shared<nn::ModuleList<nn::ResnetBlock>>());
  for (int i = 0; i < 2; ++i) resnets->push_back(make_resnet(config, channels, channels));
}

at::Tensor CoderMidBlock::forward(at::Tensor hidden_states, bool recompute) {
  hidden_states = run_resnet((*resnets)[0], hidden_states, recompute);
  if (attentions) hidden_states = (*attentions)[0]->forward_image(hidden_states);
  return run_resnet((*resnets)[1], hidden_states, recompute);
}

Encoder::Encoder(const AutoencoderKLConfig& config) {
  const auto& channels = config.block_out_channels;
  conv_in = register_module("conv_in", nn::Conv2d(nn::Conv2dOptions{config.in_channels, channels.front()}));
  down_blocks = register_module("down_blocks", std::make_shared<nn::ModuleList<std::shared_ptr<CoderStage>>>());
  for (size_t i = 0; i < channels.size(); ++i) {
    const auto resize = i + 1 < channels.size() ? CoderStage::Resize::kHalve : CoderStage::Resize::kNone;
    down_blocks->push_back(std::make_shared<CoderStage>(config, channels[i == 0 ? 0 : i - 1], channels[i],
                                                        config.layers_per_block, resize));
  }
  mid_block = register_module("mid_block", std::make_shared<CoderMidBlock>(config, channels.back()));
  conv_norm_out = register_module("conv_norm_out", nn::GroupNorm(config.norm_num_groups, channels.back(), kNormEps));
  conv_out = register_module("conv_out", nn::Conv2d(nn::Conv2dOptions{channels.back(), 2 * config.latent_channels}));
}

at::Tensor Encoder::forward(const at::Tensor& pixel_values, bool recompute) {
  at::Tensor hidden_states = conv_in->forward(pixel_values);
  for (auto& block : *down_blocks) hidden_states = block->forward(hidden_states, recompute);
  hidden_states = mid_block->forward(hidden_states, recompute);
  // SiLU whatever the config's act_fn: that one is for the blocks.
  return conv_out->forward(conv_norm_out->forward_activated(hidden_states, &nn::silu));
}

Decoder::Decoder(const AutoencoderKLConfig& config) {
  const auto& channels = config.block_out_channels;
  conv_in = register_module("conv_in", nn::Conv2d(nn::Conv2dOptions{config.latent_channels, channels.back()}));
  mid_block = register_module("mid_block", std::make_shared<CoderMidBlock>(config, channels.back()));
  up_blocks = register_module("up_blocks", std::make_shared<nn::ModuleList<std::shared_ptr<CoderStage>>>());
  for (size_t i = channels.size(); i-- > 0;) {
    const int64_t in_channels = channels[std::min(i + 1, channels.size() - 1)];
    const auto resize = i > 0 ? CoderStage::Resize::kDouble : CoderStage::Resize::kNone;
    up_blocks->push_back(
        std::make_shared<CoderStage>(config, in_channels, channels[i], config.layers_per_block + 1, resize));
  }
  conv_norm_out = register_module("conv_norm_out", nn::GroupNorm(config.norm_num_groups, channels.front(), kNormEps));
  conv_out = register_module("conv_out", nn::Conv2d(nn::Conv2dOptions{channels.front(), config.out_channels}));
}

at::Tensor Decoder::forward(const at::Tensor& unscaled_latents, bool recompute) {
  at::Tensor hidden_states = mid_block->forward(conv_in->forward(unscaled_latents), recompute);
  for (auto& block : *up_blocks) hidden_states = block->forward(hidden_states, recompute);
  return conv_out->forward(conv_norm_out->forward_activated(hidden_states, &nn::silu));
}

}  // namespace prefusion::vae

#include "unet/unet_2d_blocks.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "nn/activation_checkpoint.h"

namespace prefusion::unet {
namespace {

// Input channels of each resnet block on the way down.
std::vector<int64_t> down_inputs(const UNetStageConfig& stage, int64_t in_channels) {
  std::vector<int64_t> inputs(stage.num_layers, stage.channels);
  inputs.front() = in_channels;
  return inputs;
}

// On the way up each resnet block sees its predecessor's output beside a skip connection.
std::vector<int64_t> up_inputs(const UNetStageConfig& stage, int64_t previous_channels, int64_t skip_channels) {
  std::vector<int64_t> inputs(stage.num_layers, 2 * stage.channels);
  inputs.front() = previous_channels + stage.channels;
  inputs.back() += skip_channels - stage.channels;
  return inputs;
}

}  // namespace

StageBlock::StageBlock(const UNetConfig& config, const UNetStageConfig& stage, const std::vector<int64_t>& in_channels,
                       double output_scale_factor) {
  resnets = register_module("resnets", std::make_shared<nn::ModuleList<nn::ResnetBlock>>());
  for (const int64_t channels : in_channels) {
    resnets->push_back(nn::ResnetBlock(nn::ResnetBlockOptions{.in_channels = channels,
                                                              .out_channels = stage.channels,
                                                              .time_channels = config.time_embedding_dim,
                                                              .is_scale_shift = config.is_scale_shift,
                                                              .norm_num_groups = config.norm_num_groups,
                                                              .norm_eps = config.norm_eps,
                                                              .activation = config.activation,
                                                              .output_scale_factor = output_scale_factor}));
  }
  if (!stage.has_attention) return;
  check_input(stage.num_heads <= stage.channels, "UNet2DConditionModel: 'attention_head_dim' ", stage.num_heads,
              " (the number of heads) exceeds the ", stage.channels, " channels of its block");
  attentions = register_module("attentions", std::make_shared<nn::ModuleList<nn::Transformer2D>>());
  for (const int64_t num_layers : stage.transformer_layers) {
    attentions->push_back(
        nn::Transformer2D(nn::Transformer2DOptions{.channels = stage.channels,
                                                   .num_heads = stage.num_heads,
                                                   .head_dim = stage.channels / stage.num_heads,
                                                   .num_layers = num_layers,
                                                   .cross_attention_dim = stage.cross_attention_dim,
                                                   .norm_num_groups = config.norm_num_groups,
                                                   .use_linear_projection = config.use_linear_projection,
                                                   .only_cross_attention = stage.only_cross_attention}));
  }
}

at::Tensor StageBlock::run_resnet(size_t index, const at::Tensor& hidden_states, const PassInputs& inputs) {
  nn::ResnetBlock block = (*resnets)[index];
  const auto run = [block](const std::vector<at::Tensor>& x) mutable { return block->forward(x[0], x[1]); };
  return nn::run_block(*block, run, {hidden_states, inputs.activated_time}, inputs.recompute);
}

at::Tensor StageBlock::run_attention(size_t index, const at::Tensor& hidden_states, const PassInputs& inputs) {
  return (*attentions)[index]->forward(hidden_states, inputs.encoder_hidden_states, inputs.user_states,
                                       inputs.recompute);
}

at::Tensor StageBlock::run_layer(size_t index, const at::Tensor& hidden_states, const PassInputs& inputs) {
  const at::Tensor output = run_resnet(index, hidden_states, inputs);
  return attentions ? run_attention(index, output, inputs) : output;
}

DownBlock::DownBlock(const UNetConfig& config, const UNetStageConfig& stage, int64_t in_channels, bool has_downsampler)
    : StageBlock(config, stage, down_inputs(stage, in_channels)) {
  if (!has_downsampler) return;
  downsamplers = register_module("downsamplers", std::make_shared<nn::ModuleList<nn::Downsample2D>>());
  downsamplers->push_back(nn::Downsample2D(stage.channels, config.downsample_padding));
}

at::Tensor DownBlock::forward(at::Tensor hidden_states, const PassInputs& inputs, std::vector<at::Tensor>& skips) {
  for (size_t i = 0; i < resnets->size(); ++i) {
    hidden_states = run_layer(i, hidden_states, inputs);
    skips.push_back(hidden_states);
  }
  if (downsamplers) {
    hidden_states = (*downsamplers)[0]->forward(hidden_states);
    skips.push_back(hidden_states);
  }
  return hidden_states;
}

MidStage::MidStage(const UNetConfig& config, const UNetStageConfig& stage)
    : StageBlock(config, stage, std::vector<int64_t>(stage.has_attention ? 2 : 1, stage.channels),
                 config.mid_scale_factor) {}

at::Tensor MidStage::forward(at::Tensor hidden_states, const PassInputs& inputs) {
  hidden_states = run_layer(0, hidden_states, inputs);
  return attentions ? run_resnet(1, hidden_states, inputs) : hidden_states;
}

UpBlock::UpBlock(const UNetConfig& config, const UNetStageConfig& stage, int64_t previous_channels,
                 int64_t skip_channels, bool has_upsampler)
    : StageBlock(config, stage, up_inputs(stage, previous_channels, skip_channels)) {
  if (!has_upsampler) return;
  upsamplers = register_module("upsamplers", std::make_shared<nn::ModuleList<nn::Upsample2D>>());
  upsamplers->push_back(nn::Upsample2D(stage.channels));
}

at::Tensor UpBlock::forward(at::Tensor hidden_states, const PassInputs& inputs, std::vector<at::Tensor>& skips) {
  for (size_t i = 0; i < resnets->size(); ++i) {
    hidden_states = run_layer(i, at::cat({hidden_states, skips.back()}, /*dim=*/1), inputs);
    skips.pop_back();
  }
  if (!upsamplers) return hidden_states;
  return (*upsamplers)[0]->forward(hidden_states, skips.back().size(2), skips.back().size(3));
}

}  // namespace prefusion::unet

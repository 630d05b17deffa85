#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "nn/module_list.h"
#include "nn/resnet_block.h"
#include "nn/transformer_block.h"
#include "unet/unet_config.h"

namespace prefusion::unet {

// What all blocks of one pass through the network share.
struct PassInputs {
  at::Tensor activated_time;         // [B, time_embedding_dim]
  at::Tensor encoder_hidden_states;  // [B, L, D]
  at::Tensor user_states;            // [B, M, U] or undefined
  nn::Recompute recompute;           // which blocks keep no activations
};

// Resnet blocks, each followed by a transformer where the stage has attention. The parameters are resnets.N,
// attentions.N and, in the subclasses, downsamplers.0 or upsamplers.0.
class StageBlock : public torch::nn::Module {
 protected:
  // `in_channels` of each resnet block; output_scale_factor divides the output of each.
  StageBlock(const UNetConfig& config, const UNetStageConfig& stage, const std::vector<int64_t>& in_channels,
             double output_scale_factor = 1.0);

  at::Tensor run_resnet(size_t index, const at::Tensor& hidden_states, const PassInputs& inputs);
  at::Tensor run_attention(size_t index, const at::Tensor& hidden_states, const PassInputs& inputs);
  at::Tensor run_layer(size_t index, const at::Tensor& hidden_states, const PassInputs& inputs);

  std::shared_ptr<nn::ModuleList<nn::ResnetBlock>> resnets;
  std::shared_ptr<nn::ModuleList<nn::Transformer2D>> attentions;  // null without attention
};

// DownBlock2D and CrossAttnDownBlock2D.
class DownBlock : public StageBlock {
 public:
  DownBlock(const UNetConfig& config, const UNetStageConfig& stage, int64_t in_channels, bool has_downsampler);

  // hidden_states [B, in, H, W] -> [B, out, H', W']; appends each output to `skips`.
  at::Tensor forward(at::Tensor hidden_states, const PassInputs& inputs, std::vector<at::Tensor>& skips);

 private:
  std::shared_ptr<nn::ModuleList<nn::Downsample2D>> downsamplers;
};

// UNetMidBlock2DCrossAttn, and UNetMidBlock2D, which in this network is a single resnet block.
class MidStage : public StageBlock {
 public:
  MidStage(const UNetConfig& config, const UNetStageConfig& stage);
  at::Tensor forward(at::Tensor hidden_states, const PassInputs& inputs);  // [B, C, H, W] -> [B, C, H, W]
};

// UpBlock2D and CrossAttnUpBlock2D.
class UpBlock : public StageBlock {
 public:
  // previous_channels come from the block before, skip_channels from the last skip connection taken.
  UpBlock(const UNetConfig& config, const UNetStageConfig& stage, int64_t previous_channels, int64_t skip_channels,
          bool has_upsampler);

  // Takes one tensor a layer off the end of `skips`; the next one left there gives the size to enlarge to.
  at::Tensor forward(at::Tensor hidden_states, const PassInputs& inputs, std::vector<at::Tensor>& skips);

 private:
  std::shared_ptr<nn::ModuleList<nn::Upsample2D>> upsamplers;
};

}  // namespace prefusion::unet

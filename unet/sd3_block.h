#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "nn/ada_layer_norm.h"
#include "nn/feed_forward.h"
#include "nn/joint_attention.h"
#include "unet/sd3_config.h"

namespace prefusion::unet {

// A block of SD3: patches and prompt attend to each other, each stream with weights of its own, and each goes through a
// feed-forward; timestep and pooled prompt modulate all of it (MMDiT, arXiv 2403.03206). A dual block of SD3.5 has a
// second attention among the patches, beside the first. The last block lets the prompt go.
class SD3Block : public torch::nn::Module {
 public:
  SD3Block(const SD3Config& config, bool is_dual, bool is_last);

  // hidden_states [B, N, D], context [B, L, D], embedding [B, D] -> hidden_states and, but for the last block, context.
  nn::JointStates forward(const at::Tensor& hidden_states, const at::Tensor& context, const at::Tensor& embedding);

 private:
  bool is_last_;
  nn::AdaLayerNormZero norm1{nullptr}, norm1_context_{nullptr};
  nn::AdaLayerNormContinuous norm1_last_context_{nullptr};
  nn::JointAttention attn{nullptr}, attn2{nullptr};
  nn::FeedForward ff{nullptr}, ff_context{nullptr};
};

}  // namespace prefusion::unet

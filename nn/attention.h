#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/layers.h"

namespace prefusion::nn {

struct AttentionOptions {
  int64_t query_dim;
  int64_t cross_attention_dim = 0;  // width of the states attended to; 0: query_dim
  int64_t num_heads = 8;
  int64_t head_dim = 64;
  bool has_qkv_bias = false;
  int64_t norm_num_groups = 0;  // GroupNorm over the channels of the input before everything; 0: none
  double norm_eps = 1e-5;
  bool has_residual = false;  // adds the input to the output
  double output_scale_factor = 1.0;
};

// Keys and values of a second context, the states of a user (nn/user_adapter.h), whose attention is added to that of
// the first: decoupled cross-attention ("IP-Adapter", arXiv 2308.06721). No parameters of the layer, as LoRA branches.
struct UserBranch {
  at::Tensor to_k;  // [inner, user_dim]; undefined where no adapter is attached
  at::Tensor to_v;  // the same
  double scale = 1.0;
};

// Multi-head attention ("Attention Is All You Need", arXiv 1706.03762) with the parameters to_q, to_k, to_v, to_out.0
// and, where asked for, group_norm. Scores and softmax accumulate in fp32 in every dtype, so a config's
// `upcast_attention` asks for nothing more.
class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const AttentionOptions& options);

  // hidden_states [B, N, query_dim] attends to context [B, L, cross_attention_dim] (to itself when undefined) and,
  // where there is a user branch, to user_states [B, M, user_dim] (to nobody when undefined) -> [B, N, query_dim].
  // context_bias, where defined, is added to the scores of the context: it broadcasts to [B, num_heads, N, L].
  at::Tensor forward(const at::Tensor& hidden_states, const at::Tensor& context = {},
                     const at::Tensor& user_states = {}, const at::Tensor& context_bias = {});

  // The same on a picture, attending to itself: [B, C, H, W] -> [B, C, H, W].
  at::Tensor forward_image(const at::Tensor& hidden_states);

  Linear to_q{nullptr}, to_k{nullptr}, to_v{nullptr};
  GroupNorm group_norm{nullptr};

  UserBranch user_branch;
  bool is_cross_attention() const { return options_.cross_attention_dim > 0; }

 private:
  at::Tensor attend(const at::Tensor& hidden_states, const at::Tensor& context, const at::Tensor& user_states,
                    const at::Tensor& context_bias);

  AttentionOptions options_;
  Linear to_out_{nullptr};
};
TORCH_MODULE(Attention);

// Renames the attention parameters of checkpoints from before 2023 (query, key, value, proj_attn) to the present names
// below each module path given, and flattens weights that were saved as 1x1 convolutions.
void rename_deprecated_attention(TensorMap& weights, const std::vector<std::string>& module_paths);

}  // namespace prefusion::nn

#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/layers.h"
#include "nn/rms_norm.h"
#include "nn/rotary_embedding.h"

namespace prefusion::nn {

struct JointAttentionOptions {
  int64_t dim;  // width of hidden_states, and of the context where there is one
  int64_t num_heads = 8;
  int64_t head_dim = 64;
  bool has_context = false;        // a second stream: add_q_proj, add_k_proj, add_v_proj
  bool has_context_output = true;  // to_add_out; the last block of SD3 has no use for its context
  bool has_output = true;          // to_out.0; the parallel blocks of FLUX project later
  bool has_qk_norm = false;  // RMS norm of each head's queries and keys: norm_q, norm_k, norm_added_q, norm_added_k
  double norm_eps = 1e-6;
};

struct JointStates {
  at::Tensor hidden_states;  // [B, N, dim]
  at::Tensor context;        // [B, L, dim]; undefined where there is none
};

// Attention among the tokens of two streams, each with projections of its own ("Scaling Rectified Flow Transformers for
// High-Resolution Image Synthesis", arXiv 2403.03206); without a context plain self-attention.
class JointAttentionImpl : public torch::nn::Module {
 public:
  explicit JointAttentionImpl(const JointAttentionOptions& options);

  // Without output projections the states are [B, N, num_heads * head_dim] (and L). Queries and keys are turned by the
  // angles of all L + N tokens, the context's first, where there are any.
  JointStates forward(const at::Tensor& hidden_states, const at::Tensor& context = {},
                      const RotaryEmbedding& rotary = {});

 private:
  struct Heads {  // each [B, heads, N, head_dim]
    at::Tensor query, key, value;
  };
  Heads split(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) const;
  // Queries or keys of a stream normalised and turned; its first token is number `first` of all.
  at::Tensor place(const at::Tensor& heads, RMSNorm& norm, const RotaryEmbedding& rotary, int64_t first) const;

  JointAttentionOptions options_;
  Linear to_q{nullptr}, to_k{nullptr}, to_v{nullptr}, to_out_{nullptr};
  Linear add_q_proj{nullptr}, add_k_proj{nullptr}, add_v_proj{nullptr}, to_add_out{nullptr};
  RMSNorm norm_q{nullptr}, norm_k{nullptr}, norm_added_q{nullptr}, norm_added_k{nullptr};
};
TORCH_MODULE(JointAttention);

}  // namespace prefusion::nn

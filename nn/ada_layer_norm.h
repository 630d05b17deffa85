#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "nn/layers.h"

// Layer norms whose shift and scale, and the gate of the residual branch behind them, are computed from an embedding of
// timestep and prompt ("Scalable Diffusion Models with Transformers", arXiv 2212.09748).
namespace prefusion::nn {

// Layer norm over the last dimension without weight and bias: [..., D] -> the same.
at::Tensor plain_layer_norm(const at::Tensor& input, double eps = 1e-6);

// How one branch of a block is modulated; each [B, 1, D].
struct Modulation {
  at::Tensor shift;
  at::Tensor scale;
  at::Tensor gate;  // of the branch's output; undefined where there is none

  // normed [B, N, D] * (1 + scale) + shift
  at::Tensor apply(const at::Tensor& normed) const;
  // The same of plain_layer_norm(states): in one pass where all are of one dtype.
  at::Tensor apply_to_norm(const at::Tensor& states, double eps = 1e-6) const;
  // states [B, N, D] + gate * output
  at::Tensor add_gated(const at::Tensor& states, const at::Tensor& output) const;
};

// The modulations of a block's branches, from one projection `linear` of the activated embedding: adaLN-Zero. A
// transformer block has two branches (attention, feed-forward); a parallel block of FLUX one; a block of SD3.5 with a
// second attention three (attention, feed-forward, second attention).
class AdaLayerNormZeroImpl : public torch::nn::Module {
 public:
  explicit AdaLayerNormZeroImpl(int64_t dim, int64_t num_branches = 2);
  std::vector<Modulation> forward(const at::Tensor& embedding);  // [B, D] -> one entry a branch

  Linear linear{nullptr};  // D -> 3 * num_branches * D: shift, scale, gate of each branch in turn

 private:
  int64_t num_branches_;
};
TORCH_MODULE(AdaLayerNormZero);

// A modulated layer norm without gate, its parameters from `linear` (scale first): what the output layer and the
// last block's context use.
class AdaLayerNormContinuousImpl : public torch::nn::Module {
 public:
  AdaLayerNormContinuousImpl(int64_t dim, int64_t embedding_dim, double eps = 1e-6);
  // input [B, N, dim], embedding [B, embedding_dim] -> [B, N, dim]
  at::Tensor forward(const at::Tensor& input, const at::Tensor& embedding);

  Linear linear{nullptr};

 private:
  double eps_;
};
TORCH_MODULE(AdaLayerNormContinuous);

}  // namespace prefusion::nn

#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

#include "nn/layers.h"
#include "nn/module_list.h"

namespace prefusion::nn {

struct ClipEncoderOptions {
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t num_layers;
  int64_t num_heads;
  double layer_norm_eps = 1e-5;
  Activation activation = nullptr;
};

// Who attends to whom.
struct AttentionMask {
  bool is_causal = false;
  at::Tensor allowed;  // bool [B, 1, L, L], true where a query may look; undefined: everywhere is_causal allows
};

class ClipEncoderLayerImpl;

// The pre-norm transformer of CLIP's text and picture towers (arXiv 2103.00020) and of SigLIP's (arXiv 2303.15343),
// with the parameter names of transformers: layers.N.{self_attn.{q,k,v,out}_proj, layer_norm1, mlp.{fc1,fc2},
// layer_norm2}.
class ClipEncoderImpl : public torch::nn::Module {
 public:
  explicit ClipEncoderImpl(const ClipEncoderOptions& options);

  // One layer: [B, L, D] -> [B, L, D].
  at::Tensor forward_layer(int64_t layer, const at::Tensor& hidden_states, const AttentionMask& mask = {});
  // All of them.
  at::Tensor forward(const at::Tensor& hidden_states, const AttentionMask& mask = {});
  // The first token of what forward() gives without a mask, [B, L, D] -> [B, D]: what the last layer does to the other
  // tokens is left out, and without gradients the passes over memory between the matrix products are too.
  at::Tensor forward_first_token(const at::Tensor& hidden_states);

  // One layer of several causal texts, each [1, L, D] of its own length, in place and without gradients. What becomes
  // of one does not depend on the others, to the bit. On the CPU in fp32 the weights are read once for all of them.
  void forward_texts(int64_t layer, std::vector<at::Tensor>& states);

  // Takes a layer's large weights out of resident memory where they are views of a mapped file (MappedFile::evict):
  // for a layer that is not needed for a while and whose weights nobody has written to.
  void evict_layer(int64_t layer);

  // Whether layers keep their activations for the backward pass or compute them once more in it.
  void set_gradient_checkpointing(bool on) { is_recomputed_ = on; }

  int64_t num_layers() const { return static_cast<int64_t>(layers->size()); }

 private:
  using Layers = ModuleList<std::shared_ptr<ClipEncoderLayerImpl>>;
  std::shared_ptr<Layers> layers;
  bool is_recomputed_ = false;
};

}  // namespace prefusion::nn

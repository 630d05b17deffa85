#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <string>

#include "nn/layers.h"

namespace prefusion::nn {

// Two linear layers with a gate or an activation between; the parameters are net.0.proj and net.2. `activation`:
//   geglu              value * gelu(gate), both from one projection ("GLU Variants Improve Transformer", arXiv
//                      2002.05202)
//   gelu               erf form
//   gelu-approximate   tanh form
//   geglu-approximate  x * sigmoid(1.702 x); despite its name there is no gate
// Input error for another, naming it.
class FeedForwardImpl : public torch::nn::Module {
 public:
  FeedForwardImpl(int64_t dim, const std::string& activation = "geglu", int64_t mult = 4);
  at::Tensor forward(const at::Tensor& hidden_states);  // [..., dim] -> [..., dim]

 private:
  enum class Kind { kGeglu, kGelu, kGeluTanh, kQuickGelu };
  static Kind parse_kind(const std::string& activation);

  Kind kind_;
  Linear proj_{nullptr}, out_{nullptr};
};
TORCH_MODULE(FeedForward);

}  // namespace prefusion::nn

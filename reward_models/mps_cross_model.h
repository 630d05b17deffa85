#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "core/safetensors.h"
#include "nn/module_list.h"

namespace prefusion::reward_models {

struct MpsCrossConfig {
  int64_t width = 1024;
  int64_t num_layers = 4;
  int64_t head_dim = 64;
  int64_t num_heads = 16;
  int64_t ff_width = 4096;
};

// The config behind the weights of a cross model ("layers.0.0.fn.to_q.weight" ...), which come without one. Input error
// when they are none.
MpsCrossConfig mps_cross_config_of(const TensorMap& weights, const std::string& where);

class MpsCrossLayerImpl;

// The cross model of MPS (arXiv 2405.14705): in every layer picture tokens attend to the prompt's and then to each
// other, each time beside a gated feed-forward (SwiGLU, arXiv 2002.05202), with one key and value head for all queries
// (arXiv 1911.02150) and, among themselves, rotary positions (arXiv 2104.09864). Checkpoint keys are its
// named_parameters(), with the norms' biases, which are buffers of zeros there.
class MpsCrossModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them.
  explicit MpsCrossModel(const MpsCrossConfig& config);

  // picture_tokens [N, T, D], prompt_tokens [N, L, D], is_seen bool [N, L] -> [N, T, D]
  at::Tensor forward(const at::Tensor& picture_tokens, const at::Tensor& prompt_tokens, const at::Tensor& is_seen);

  const MpsCrossConfig& config() const { return config_; }

 private:
  using Layers = nn::ModuleList<std::shared_ptr<MpsCrossLayerImpl>>;
  MpsCrossConfig config_;
  std::shared_ptr<Layers> layers;
};

}  // namespace prefusion::reward_models

#pragma once

#include <ATen/ATen.h>

#include <initializer_list>

#include "core/rng.h"
#include "nn/layers.h"
#include "nn/timestep_range.h"

namespace prefusion::tests {

// A convolution and a linear layer behind it, asked at timesteps; its weights are not trained.
class AnnouncingNetwork : public torch::nn::Module, public nn::TimestepAnnouncer {
 public:
  AnnouncingNetwork() {
    conv = register_module("conv", nn::Conv2d(nn::Conv2dOptions{.in_channels = 2, .out_channels = 4}));
    to_q = register_module("to_q", nn::Linear(4, 3));
    auto generator = make_torch_generator(2);
    for (auto& parameter : parameters()) parameter.set_requires_grad(false).normal_(0.0, 0.5, generator);
  }
  void announce(std::initializer_list<int64_t> timesteps) { announce_timesteps(at::tensor(timesteps, at::kLong)); }
  at::Tensor forward(const at::Tensor& timesteps) {
    announce_timesteps(timesteps);
    return to_q->forward(conv->forward(input).permute({0, 2, 3, 1}));
  }
  at::Tensor forward(std::initializer_list<int64_t> timesteps) { return forward(at::tensor(timesteps, at::kLong)); }

  at::Tensor input = at::randn({2, 2, 3, 3}, make_torch_generator(6), at::kFloat);
  nn::Conv2d conv{nullptr};
  nn::Linear to_q{nullptr};
};

}  // namespace prefusion::tests

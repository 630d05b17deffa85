#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

namespace prefusion::nn {

// Root mean square normalisation of the last dimension ("Root Mean Square Layer Normalization", arXiv 1910.07467):
// x / sqrt(mean(x^2) + eps), times a weight where there is one. The mean is taken in fp32 in every dtype.
class RMSNormImpl : public torch::nn::Module {
 public:
  explicit RMSNormImpl(int64_t dim, double eps = 1e-6, bool has_weight = true);
  at::Tensor forward(const at::Tensor& input);  // [..., dim] -> the same

  double eps() const { return eps_; }

  at::Tensor weight;  // [dim] or undefined

 private:
  double eps_;
};
TORCH_MODULE(RMSNorm);

}  // namespace prefusion::nn

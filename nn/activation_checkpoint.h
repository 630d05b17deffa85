#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "nn/activation_planner.h"
#include "nn/block_function.h"

// Trades time for memory: a block's activations are not kept for the backward pass but computed once more in it
// ("Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
namespace prefusion::nn {

// Runs function(inputs) without recording it; the backward pass runs it again and differentiates that.
// Gradients reach `inputs` and `parameters` (every tensor the function uses that may need one) the ordinary way, so
// accumulation, hooks and autograd::grad work. The function must be deterministic; it is kept alive by the graph.
// Undefined inputs are passed on as they are. Gradients of gradients are not supported.
std::vector<at::Tensor> activation_checkpoint(BlockFunction function, const std::vector<at::Tensor>& inputs,
                                              const std::vector<at::Tensor>& parameters);

// What below `module` can receive a gradient: parameters that require one, the tensors of LoRA branches switched on
// with their item weights, and user branches.
std::vector<at::Tensor> trainable_tensors(const torch::nn::Module& module);

// Which blocks are recomputed: none, all, or those that a planner chooses.
struct Recompute {
  Recompute(bool all = false) : all(all) {}
  explicit Recompute(std::shared_ptr<ActivationPlanner> planner) : planner(std::move(planner)) {}
  // All blocks, or as many as leave the others so many gigabytes; 0 keeps everything.
  Recompute(bool all, double kept_gigabytes) : all(all) {
    if (kept_gigabytes > 0) planner = std::make_shared<ActivationPlanner>(static_cast<size_t>(kept_gigabytes * 1e9));
  }

  bool all = false;
  std::shared_ptr<ActivationPlanner> planner;
};

// A block that maps tensors to one tensor, recomputed in the backward pass or not. Trailing undefined inputs are
// dropped. Either way each input enters the block through a node of its own, which fixes the order in which gradients
// are summed: both ways give the same bits.
at::Tensor run_block(const torch::nn::Module& module,
                     const std::function<at::Tensor(const std::vector<at::Tensor>&)>& function,
                     std::vector<at::Tensor> inputs, const Recompute& recompute);

// The same for a block that maps tensors to several, as those with two streams.
std::vector<at::Tensor> run_block(const torch::nn::Module& module, const BlockFunction& function,
                                  std::vector<at::Tensor> inputs, const Recompute& recompute);

}  // namespace prefusion::nn

#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/block_function.h"

namespace prefusion::nn {

// Which blocks of a network compute their activations once more in the backward pass so that what all others keep fits
// a budget: those that take the fewest operations for the bytes they free. The first pass of every shape recomputes all
// blocks and measures them. Results are the same to the bit whatever is recomputed (run_block).
class ActivationPlanner {
 public:
  // What one block keeps for the backward pass beyond its outputs, and the operations of its forward pass.
  struct Cost {
    size_t kept_bytes = 0;
    int64_t operations = 0;
    bool is_known = false;
  };

  struct Choice {
    bool recomputes = true;
    std::shared_ptr<Cost> to_measure;  // null where the block has been
  };

  // `budget_bytes` for the kept activations of one pass, and for those of the block that is being recomputed.
  explicit ActivationPlanner(size_t budget_bytes) : budget_bytes_(budget_bytes) {}

  // For a block of a pass with gradients. A pass begins with the block that was asked about first of all, and passes
  // are told apart by its inputs' shapes. To be called by one thread.
  Choice choose(const torch::nn::Module& block, const std::vector<at::Tensor>& inputs);

  // Of the blocks with these costs: true for those to recompute.
  static std::vector<bool> plan(const std::vector<Cost>& costs, size_t budget_bytes);

 private:
  // The blocks of passes of one shape.
  struct Pass {
    std::map<const torch::nn::Module*, size_t> numbers;
    std::vector<std::shared_ptr<Cost>> costs;
    std::vector<bool> recomputes;  // empty until all costs are known
  };

  void begin_pass(const std::vector<at::Tensor>& inputs);
  void make_plan(Pass& pass) const;

  size_t budget_bytes_;
  const torch::nn::Module* first_ = nullptr;
  std::map<std::vector<std::vector<int64_t>>, Pass> passes_;
  Pass* pass_ = nullptr;
};

// The same function; when it is called with gradients and the cost is not known yet, it is measured.
BlockFunction measured(BlockFunction function, std::shared_ptr<ActivationPlanner::Cost> cost);

}  // namespace prefusion::nn

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace prefusion::training {

// A reward that is the cosine of two embeddings, differentiable in the picture.
class DifferentiableReward {
 public:
  virtual ~DifferentiableReward() = default;

  // Usage error when pictures of this prompt cannot be judged.
  virtual void check_prompt(const std::string& prompt) const = 0;

  // [N, D] at unit length, constant, on the CPU.
  virtual at::Tensor embed_texts(const std::vector<std::string>& prompts) const = 0;

  // pixel_values [N, 3, H, W], about [-1, 1] -> [N, D] at unit length, differentiable.
  virtual at::Tensor embed_images(const at::Tensor& pixel_values) const = 0;
};

// By the name on the command line: "shapes-soft" (shapes/soft_features.h). Usage error for another, which says of a
// judge without a gradient that it has none.
std::unique_ptr<DifferentiableReward> make_differentiable_reward(const std::string& reward);

}  // namespace prefusion::training

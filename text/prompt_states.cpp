#include "text/prompt_states.h"

#include <ATen/ATen.h>

namespace prefusion::text {

PromptStates stack_states(const std::vector<PromptStates>& rows) {
  const auto stacked = [&](at::Tensor PromptStates::*part) {
    std::vector<at::Tensor> tensors;
    for (const PromptStates& row : rows) {
      if ((row.*part).defined()) tensors.push_back(row.*part);
    }
    return tensors.empty() ? at::Tensor() : at::stack(tensors);
  };
  return {stacked(&PromptStates::encoder_hidden_states), stacked(&PromptStates::encoder_mask),
          stacked(&PromptStates::pooled)};
}

}  // namespace prefusion::text

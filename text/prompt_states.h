#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace prefusion::text {

// What a model's text encoders make of prompts; a row (or leading dimensions) for each. Models without a part leave it
// undefined.
struct PromptStates {
  at::Tensor encoder_hidden_states;  // [B, L, D]
  at::Tensor encoder_mask;           // [B, L] bool, true for tokens to attend to
  at::Tensor pooled;                 // [B, P]

  bool defined() const { return encoder_hidden_states.defined(); }

  // The same with each tensor that is there replaced by what `change` makes of it.
  template <typename Change>
  PromptStates map(const Change& change) const {
    const auto changed = [&](const at::Tensor& tensor) { return tensor.defined() ? change(tensor) : tensor; };
    return {changed(encoder_hidden_states), changed(encoder_mask), changed(pooled)};
  }
};

// States of single prompts ([L, D], [L], [P]) stacked to rows. All must have the same parts.
PromptStates stack_states(const std::vector<PromptStates>& rows);

}  // namespace prefusion::text

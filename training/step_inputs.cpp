#include "training/step_inputs.h"

namespace prefusion::training {
namespace {

// Members are named by structured bindings: with one more, these do not compile until it has a place here.

void add(text::PromptStates& states, std::vector<at::Tensor*>& tensors) {
  auto& [hidden_states, mask, pooled] = states;
  tensors.insert(tensors.end(), {&hidden_states, &mask, &pooled});
}

void add(GroupInputs& groups, std::vector<at::Tensor*>& tensors) {
  auto& [latents, noise_streams, inverted_noise, timesteps, told_timesteps, sigmas, prompts, policy_prompts,
         has_item_prompts, time_ids, guidance, user_states, noisy_latents, target] = groups;
  tensors.insert(tensors.end(), {&latents, &noise_streams, &inverted_noise, &timesteps, &told_timesteps, &sigmas,
                                 &time_ids, &user_states, &noisy_latents, &target});
  add(prompts, tensors);
  add(policy_prompts, tensors);
}

void add(losses::GroupErrors& errors, std::vector<at::Tensor*>& tensors) {
  auto& [error, error_ref, labels, scores, weights, drift, residual_dot, residual_square, prompt_distance,
         latent_source, has_item_prompts, is_masked, drop_margin, swap, error_scale] = errors;
  tensors.insert(tensors.end(), {&error, &error_ref, &labels, &scores, &weights, &drift, &residual_dot,
                                 &residual_square, &prompt_distance, &drop_margin, &swap, &error_scale});
}

}  // namespace

std::vector<at::Tensor*> tensors_of(StepInputs& inputs) {
  auto& [groups, masks, known] = inputs;
  std::vector<at::Tensor*> tensors = {&masks};
  add(groups, tensors);
  add(known, tensors);
  return tensors;
}

}  // namespace prefusion::training

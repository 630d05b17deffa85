#include "training/trace.h"

#include <ATen/ATen.h>

#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"
#include "kernels/noise_and_target/noise_and_target.h"

namespace prefusion::training {

TraceWriter::TraceWriter(std::filesystem::path folder, int64_t num_steps, Metadata metadata, uint64_t seed)
    : folder_(std::move(folder)), num_steps_(num_steps), metadata_(std::move(metadata)), seed_(seed) {
  make_folder(folder_);
}

void TraceWriter::keep(const std::string& name, const at::Tensor& tensor) {
  if (tensor.defined()) parts_[name].push_back(tensor.detach().cpu());
}

void TraceWriter::add(const StepTensors& tensors, const EncodedBatch& batch) {
  const GroupInputs& inputs = tensors.inputs;
  const losses::GroupErrors& errors = tensors.errors;
  keep("latents", inputs.latents);
  keep("noise", inputs.inverted_noise.defined()
                    ? inputs.inverted_noise
                    : kernels::group_noise(inputs.noise_streams, seed_, inputs.latents.sizes().slice(2),
                                           inputs.latents.size(1)));
  keep("timesteps", inputs.told_timesteps);
  keep("sigmas", inputs.sigmas);
  const bool has_two = inputs.policy_prompts.defined();
  const text::PromptStates& prompts = has_two ? inputs.policy_prompts : inputs.prompts;
  keep("encoder_hidden_states", prompts.encoder_hidden_states);
  keep("encoder_mask", prompts.encoder_mask);
  keep("pooled", prompts.pooled);
  if (has_two) {
    keep("encoder_hidden_states_ref", inputs.prompts.encoder_hidden_states);
    keep("pooled_ref", inputs.prompts.pooled);
  }
  keep("time_ids", inputs.time_ids);
  keep("user_states", inputs.user_states);
  keep("noisy_latents", inputs.noisy_latents);
  keep("target", inputs.target);
  keep("prediction", tensors.prediction);
  keep("error", errors.error);
  keep("error_ref", errors.error_ref);
  keep("kappa", at::full({1}, tensors.kappa));
  keep("label", errors.labels);
  keep("scores", errors.scores);
  keep("weights", errors.weights);
  keep("masks", batch.masks);
  keep("drift", errors.drift);
  keep("residual_dot", errors.residual_dot);
  keep("residual_square", errors.residual_square);
  keep("prompt_distance", errors.prompt_distance);
  keep("error_scale", errors.error_scale);
  keep("drop_margin", errors.drop_margin);
  keep("swap", errors.swap);
}

void TraceWriter::write(int64_t step, const at::Tensor& loss, const at::Tensor& grad_norm) {
  TensorMap joined;
  for (const auto& [name, tensors] : parts_) {
    for (const at::Tensor& tensor : tensors) {
      check_run(tensor.sizes().slice(1) == tensors.front().sizes().slice(1), "--trace: micro-steps of step ", step,
                " differ in the shape of ", name, " (", shape_text(tensor.sizes()), " and ",
                shape_text(tensors.front().sizes()), "), so one tensor cannot hold them; use --accumulate 1");
    }
    joined[name] = at::cat(tensors);
  }
  joined["loss"] = loss.detach().to(at::kFloat).cpu();
  joined["grad_norm"] = grad_norm.detach().to(at::kFloat).cpu();
  char name[40];
  std::snprintf(name, sizeof name, "step-%06lld.safetensors", static_cast<long long>(step));
  write_safetensors(folder_ / name, joined, metadata_);
  parts_.clear();
}

}  // namespace prefusion::training

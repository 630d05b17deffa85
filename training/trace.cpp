#include "training/trace.h"

#include <ATen/ATen.h>

#include <cstdio>

#include "core/atomic_file.h"
#include "kernels/noise_and_target/noise_and_target.h"

namespace prefusion::training {

TraceWriter::TraceWriter(std::filesystem::path folder, int64_t num_steps, Metadata metadata, uint64_t seed)
    : folder_(std::move(folder)), num_steps_(num_steps), metadata_(std::move(metadata)), seed_(seed) {
  make_folder(folder_);
}

void TraceWriter::add(const StepTensors& tensors, const EncodedBatch& batch) {
  const auto keep = [&](const char* name, const at::Tensor& tensor) {
    if (tensor.defined()) parts_[name].push_back(tensor.detach().cpu());
  };
  keep("latents", tensors.latents);
  keep("noise",
       kernels::group_noise(tensors.noise_streams, seed_, tensors.latents.sizes().slice(2), tensors.latents.size(1)));
  keep("timesteps", tensors.timesteps);
  keep("encoder_hidden_states", tensors.encoder_hidden_states);
  keep("noisy_latents", tensors.noisy_latents);
  keep("target", tensors.target);
  keep("prediction", tensors.prediction);
  keep("error", tensors.error);
  keep("error_ref", tensors.error_ref);
  keep("label", batch.labels);
  keep("scores", batch.scores);
}

void TraceWriter::write(int64_t step, const at::Tensor& loss, const at::Tensor& grad_norm) {
  TensorMap joined;
  for (const auto& [name, tensors] : parts_) joined[name] = at::cat(tensors);
  joined["loss"] = loss.detach().to(at::kFloat).cpu();
  joined["grad_norm"] = grad_norm.detach().to(at::kFloat).cpu();
  char name[40];
  std::snprintf(name, sizeof name, "step-%06lld.safetensors", static_cast<long long>(step));
  write_safetensors(folder_ / name, joined, metadata_);
  parts_.clear();
}

}  // namespace prefusion::training

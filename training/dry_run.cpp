#include "training/dry_run.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <optional>

#include "core/device.h"
#include "core/error.h"
#include "core/peak_memory.h"
#include "core/progress.h"
#include "losses/registry.h"
#include "nn/layers.h"
#include "training/graphed_step.h"
#include "training/synthetic_batch.h"

namespace prefusion::training {
namespace {

double gigabytes(size_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

}  // namespace

void print_parameters(const std::string& objective, const Optimizer& optimizer) {
  int64_t trainable = 0;
  for (const auto& [name, parameter] : optimizer.parameters()) trainable += parameter.numel();
  std::printf("objective            %s\n", objective.c_str());
  std::printf("trainable parameters %lld\n", static_cast<long long>(trainable));
}

size_t denoiser_bytes(const Policy& policy, at::Device device) {
  size_t bytes = 0;
  for (const auto& [name, tensor] : nn::named_tensors(*policy.denoiser)) {
    if (tensor.device().type() == device.type()) bytes += tensor.nbytes();
  }
  return bytes;
}

void print_memory(const Optimizer& optimizer, size_t policy_bytes, size_t reference_bytes, at::Device device) {
  size_t trainable_bytes = 0;
  for (const auto& [name, parameter] : optimizer.parameters()) trainable_bytes += parameter.nbytes();
  std::printf("memory               policy %.3f GB, reference %.3f GB, gradients %.3f GB, optimizer %.3f GB\n",
              gigabytes(policy_bytes), gigabytes(reference_bytes), gigabytes(trainable_bytes),
              gigabytes(optimizer.state_bytes()));
  std::printf("peak memory          %.3f GB measured, with activations\n", gigabytes(peak_memory_bytes(device)));
}

void dry_run(const TrainStep& step, Optimizer& optimizer, const Policy& policy, const EncodedData& data,
             const AlignOptions& options, int64_t num_steps, at::Device device, const losses::ObjectiveParams& params,
             const std::function<EncodedBatch(const EncodedBatch&)>& complete) {
  const auto& objective = losses::find_objective(options.objective);
  const int64_t items = data.items_per_group();
  const ItemShape shape{
      .latents = data.latent_shape(), .prompt = data.example_prompt(), .time_ids = data.example_time_ids()};
  const EncodedBatch batch = synthetic_batch(shape, options.batch_size, items, objective.info, device);
  double seconds = 0;
  constexpr int kSteps = 2;  // the first one allocates, the second is measured
  // A cached reference leaves two numbers a pair.
  const bool is_cached =
      options.reference_spec(losses::with_needs_of(options.loss, objective.info)).kind == ReferenceKind::kCached;
  const at::Tensor known = is_cached ? at::ones({options.batch_size, items}).to(device) : at::Tensor();
  std::optional<GraphedStep> graphed;
  if (options.cuda_graph) graphed.emplace(step, policy.trainable, 1.0);
  const size_t encoding_peak = peak_memory_bytes(device);
  reset_peak_memory(device);
  for (int i = 0; i < kSteps; ++i) {
    const auto began = std::chrono::steady_clock::now();
    for (int64_t micro = 0; micro < options.accumulate; ++micro) {
      const StepInputs inputs = step.prepare(complete(batch), step.draw_timesteps(batch), known);
      graphed ? (void)graphed->run(inputs) : step.compute(inputs).loss.loss.backward();
    }
    optimizer.grad_norm().item<double>();
    optimizer.step(0.0);
    optimizer.zero_grad();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  const int64_t effective = options.batch_size * options.accumulate;
  const bool has_copy =
      options.reference_spec(losses::with_needs_of(options.loss, objective.info)).kind == ReferenceKind::kFrozen;
  print_parameters(concat(options.objective, ", ", losses::describe_params(objective.info, params)), optimizer);
  std::printf("effective batch      %lld groups (%lld x %lld), %lld training groups\n",
              static_cast<long long>(effective), static_cast<long long>(options.batch_size),
              static_cast<long long>(options.accumulate), static_cast<long long>(data.num_train_groups()));
  const size_t bytes = denoiser_bytes(policy, device);
  print_memory(optimizer, bytes + (policy.text ? policy.text->weight_bytes() : 0), has_copy ? bytes : 0, device);
  std::printf("before the steps     %.3f GB measured, encoding data\n", gigabytes(encoding_peak));
  std::printf("seconds per step     %.3f measured\n", seconds);
  std::printf("steps                %lld, about %s\n", static_cast<long long>(num_steps),
              duration_text(seconds * static_cast<double>(num_steps)).c_str());
}

}  // namespace prefusion::training

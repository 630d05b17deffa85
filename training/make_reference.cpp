#include "training/make_reference.h"

#include "core/error.h"
#include "nn/layers.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

std::shared_ptr<unet::Denoiser> load_reference_denoiser(const AlignOptions& options, at::ScalarType dtype,
                                                        at::Device device) {
  const auto& folder = options.reference_model.empty() ? options.model : options.reference_model;
  return load_start_denoiser(folder, options, dtype, device);
}

// Reads all the weights.
std::string reference_weights_key(const AlignOptions& options, const Policy& policy, at::ScalarType dtype,
                                  at::Device device) {
  if (!options.reference_model.empty()) {
    return weights_key("denoiser", nn::tensor_map(*load_reference_denoiser(options, dtype, device)));
  }
  std::string key = weights_key("denoiser", nn::tensor_map(*policy.denoiser));
  if (options.init_lora.empty() || !policy.adapter) return key;  // a fresh adapter has no effect yet
  TensorMap adapter;
  for (const auto& [name, tensor] : policy.trainable) adapter[name] = tensor.detach();
  return concat(key, " ", weights_key("adapter", adapter));
}

}  // namespace

std::unique_ptr<ReferencePolicy> make_reference(const ReferenceSpec& spec, const AlignOptions& options,
                                                const Policy& policy, at::ScalarType dtype, at::Device device) {
  const ReferenceSpec start{.kind = ReferenceKind::kFrozen};
  const bool is_own = spec.kind == ReferenceKind::kAdapterOff || spec.kind == ReferenceKind::kCached;
  // The policy's network answers as it did before, as long as it is asked for no user and the experts are off.
  if ((policy.users || policy.gate) && is_own && options.reference_model.empty())
    return adapter_off_reference(policy.denoiser, nullptr);
  switch (spec.kind) {
    case ReferenceKind::kNone: return nullptr;
    case ReferenceKind::kAdapterOff:
      if (options.init_lora.empty()) return adapter_off_reference(policy.denoiser, policy.adapter);
      return trained_weights_reference(policy.denoiser, policy.trainable, start);
    case ReferenceKind::kFrozen: return frozen_reference(load_reference_denoiser(options, dtype, device));
    case ReferenceKind::kCached:
      if (!options.reference_model.empty()) return frozen_reference(load_reference_denoiser(options, dtype, device));
      return trained_weights_reference(policy.denoiser, policy.trainable, start);
    default: return trained_weights_reference(policy.denoiser, policy.trainable, spec);
  }
}

std::string reference_run_key(const AlignOptions& options, const Policy& policy,
                              const schedulers::NoiseSchedule& schedule, const LatentScaling& scaling,
                              at::ScalarType dtype, at::Device device) {
  const TensorMap levels = schedule.is_flow() ? TensorMap{{"sigmas", schedule.sigmas()}}
                                              : TensorMap{{"alphas_cumprod", schedule.alphas_cumprod()}};
  return concat(reference_weights_key(options, policy, dtype, device), " ", weights_key("schedule", levels), " ",
                prediction_type_name(schedule.prediction_type()), " ", c10::toString(dtype), " ", scaling.scale, " ",
                scaling.shift, " ", options.seed,
                policy.denoiser->info().uses_guidance ? concat(" guidance ", options.distilled_guidance) : "");
}

}  // namespace prefusion::training

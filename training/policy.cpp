#include "training/policy.h"

#include <ATen/ATen.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "training/ema.h"

namespace prefusion::training {
namespace fs = std::filesystem;

Policy make_policy(const AlignOptions& options, at::ScalarType dtype, at::Device device) {
  Policy policy;
  policy.denoiser = unet::load_denoiser(options.model / "unet", dtype, device);
  policy.denoiser->set_gradient_checkpointing(options.gradient_checkpointing);
  if (options.adapter_kind() == AdapterKind::kLora) {
    const nn::LoraConfig config{
        .rank = options.rank,
        .alpha = options.lora_alpha > 0 ? options.lora_alpha : static_cast<double>(options.rank),
        .target_modules = options.target_modules};
    policy.adapter = nn::LoraAdapter::create(*policy.denoiser, config, make_torch_generator(options.seed));
    policy.trainable = policy.adapter->parameters();
  } else {
    for (const auto& item : policy.denoiser->named_parameters()) policy.trainable.push_back({item.key(), item.value()});
  }
  for (auto& [name, parameter] : policy.trainable) parameter.set_requires_grad(true);
  return policy;
}

namespace {

bool is_weight_file(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".bin") || name.find(".index.") != std::string::npos;
}

// The model folder without the denoiser's weights; existing files are replaced.
void copy_model(const fs::path& from, const fs::path& to) {
  for (auto entry = fs::recursive_directory_iterator(from); entry != fs::recursive_directory_iterator(); ++entry) {
    const fs::path relative = fs::relative(entry->path(), from);
    std::error_code error;
    if (entry->is_directory()) {
      if (relative.filename().string().starts_with(".")) entry.disable_recursion_pending();
      continue;
    }
    const bool is_denoiser = relative.begin()->string() == "unet";
    if (is_denoiser && is_weight_file(relative)) continue;
    if (relative.filename().string().starts_with(".")) continue;
    make_folder((to / relative).parent_path());
    AtomicFile copy(to / relative);
    fs::copy_file(entry->path(), copy.temporary_path(), fs::copy_options::overwrite_existing, error);
    check_run(!error, (to / relative).string(), ": cannot be written (", error.message(), ")");
    copy.commit();
  }
}

}  // namespace

void write_weights(const AlignOptions& options, const Policy& policy, const std::vector<NamedTensor>& weights) {
  if (policy.adapter) {
    const SwappedWeights swapped(policy.trainable, weights);
    nn::save_lora(options.output / "pytorch_lora_weights.safetensors", policy.adapter.get(), nullptr,
                  nn::parse_lora_format(options.lora_format));
    return;
  }
  copy_model(options.model, options.output);
  TensorMap tensors;
  for (const auto& [name, tensor] : weights) tensors[name] = tensor;
  for (const auto& item : policy.denoiser->named_buffers()) tensors[item.key()] = item.value();
  write_safetensors(options.output / "unet" / "diffusion_pytorch_model.safetensors", tensors, {{"format", "pt"}});
}

}  // namespace prefusion::training

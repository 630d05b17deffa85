#include "training/policy.h"

#include <ATen/ATen.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "training/ema.h"

namespace prefusion::training {
namespace fs = std::filesystem;

namespace {

// The adapter of --init-lora on a network.
std::shared_ptr<nn::LoraAdapter> load_init_lora(unet::Denoiser& denoiser, const AlignOptions& options) {
  const nn::LoraLoadReport report = nn::load_lora(denoiser, nullptr, options.init_lora, 1.0);
  check_input(report.unet != nullptr, report.file.string(), ": has no adapter for the denoiser");
  check_input(report.unmatched.empty(), report.file.string(), ": ", report.unmatched.size(),
              " keys fit no layer of the denoiser, the first is ",
              report.unmatched.empty() ? "" : report.unmatched.front(), "; --init-lora would train without them");
  return report.unet;
}

std::shared_ptr<nn::LoraAdapter> make_adapter(unet::Denoiser& denoiser, const AlignOptions& options) {
  if (!options.init_lora.empty()) return load_init_lora(denoiser, options);
  const nn::LoraConfig config{.rank = options.rank,
                              .alpha = options.lora_alpha > 0 ? options.lora_alpha : static_cast<double>(options.rank),
                              .target_modules = options.target_modules};
  return nn::LoraAdapter::create(denoiser, config, make_torch_generator(options.seed));
}

}  // namespace

Policy make_policy(const AlignOptions& options, at::ScalarType dtype, at::Device device) {
  Policy policy;
  if (options.adapter_kind() == AdapterKind::kLora) {
    policy.denoiser = unet::load_denoiser(options.model / "unet", dtype, device);
    for (auto& parameter : policy.denoiser->parameters()) parameter.set_requires_grad(false);
    policy.adapter = make_adapter(*policy.denoiser, options);
    policy.trainable = policy.adapter->parameters();
  } else {
    policy.denoiser = load_start_denoiser(options.model, options, dtype, device);
    for (const auto& item : policy.denoiser->named_parameters()) policy.trainable.push_back({item.key(), item.value()});
  }
  policy.denoiser->set_gradient_checkpointing(options.gradient_checkpointing);
  for (auto& [name, parameter] : policy.trainable) parameter.set_requires_grad(true);
  return policy;
}

std::shared_ptr<unet::Denoiser> load_start_denoiser(const fs::path& folder, const AlignOptions& options,
                                                    at::ScalarType dtype, at::Device device) {
  auto denoiser = unet::load_denoiser(folder / "unet", dtype, device);
  const bool has_init = !options.init_lora.empty() && folder == options.model;
  if (has_init) {
    load_init_lora(*denoiser, options);
    nn::merge_lora(*denoiser);
  }
  return denoiser;
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

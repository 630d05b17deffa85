#include "training/policy.h"

#include <ATen/ATen.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"
#include "core/rng.h"
#include "losses/registry.h"
#include "nn/frozen_weights.h"
#include "nn/layers.h"
#include "schedulers/scheduler_config.h"
#include "training/ema.h"
#include "training/users.h"

namespace prefusion::training {
namespace fs = std::filesystem;

namespace {

// The adapter of `flag` on a network.
std::shared_ptr<nn::LoraAdapter> load_whole_lora(unet::Denoiser& denoiser, const fs::path& path, const char* flag) {
  const nn::LoraLoadReport report = nn::load_lora(denoiser, nullptr, path, 1.0);
  check_input(report.unet != nullptr, report.file.string(), ": has no adapter for the denoiser");
  check_input(report.unmatched.empty(), report.file.string(), ": ", report.unmatched.size(),
              " keys fit no layer of the denoiser, the first is ",
              report.unmatched.empty() ? "" : report.unmatched.front(), "; ", flag, " would train without them");
  return report.unet;
}

// The timesteps a LoRA is trained on are those at which it acts, in the numbers that the network is told. Those of a
// flow model go up to T itself.
void restrict_to_trained_timesteps(nn::LoraAdapter& adapter, unet::Denoiser& denoiser, const AlignOptions& options) {
  if (options.timestep_range.empty()) return;
  auto range = nn::parse_timestep_range(options.timestep_range);
  check_usage(range.has_value(), "--timestep-range ", options.timestep_range, ": expected LOW:HIGH with LOW < HIGH");
  const schedulers::SchedulerConfig schedule = schedulers::read_scheduler_config(options.model);
  if (schedule.use_flow_sigmas && range->high == schedule.num_train_timesteps) ++range->high;
  adapter.restrict_to(*range, denoiser);
}

std::string expert_name(const fs::path& path) {
  return fs::is_directory(path) ? fs::absolute(path).lexically_normal().filename().string() : path.stem().string();
}

std::shared_ptr<nn::LoraGate> make_gate(unet::Denoiser& denoiser, const AlignOptions& options) {
  const losses::ObjectiveParams params = losses::resolve_params(losses::find_objective_info(options.objective),
                                                                options.objective_args, options.beta, options.kappa);
  std::vector<nn::LoraExpert> experts;
  for (const fs::path& path : options.experts) {
    experts.push_back({expert_name(path), load_whole_lora(denoiser, path, "--experts")});
  }
  return nn::LoraGate::create(denoiser, std::move(experts), static_cast<int64_t>(params.get("gate_width")),
                              make_torch_generator(options.seed));
}

// The network beside an adapter. Weights that are to be bytes become so before they are on the device.
std::shared_ptr<unet::Denoiser> load_frozen(const AlignOptions& options, at::ScalarType dtype, at::Device device) {
  const fs::path folder = unet::denoiser_folder(options.model);
  if (options.base_dtype.empty()) {
    return options.stream_weights ? unet::load_streamed_denoiser(folder, dtype, device)
                                  : unet::load_denoiser(folder, dtype, device);
  }
  auto denoiser = unet::load_denoiser(folder, dtype, at::kCPU);
  const int64_t count =
      nn::quantise_frozen_weights(*denoiser, nn::parse_frozen_dtype(options.base_dtype, "--base-dtype"));
  log_info(count, " frozen weights are ", options.base_dtype);
  if (options.stream_weights) {
    nn::stream_frozen_weights(
        *denoiser, [dtype](const std::string&) { return dtype; }, device);
  } else {
    denoiser->to(device);
  }
  return denoiser;
}

std::shared_ptr<nn::LoraAdapter> make_adapter(unet::Denoiser& denoiser, const AlignOptions& options,
                                              const at::Generator& generator) {
  if (!options.init_lora.empty()) return load_whole_lora(denoiser, options.init_lora, "--init-lora");
  const nn::LoraConfig config{.rank = options.rank,
                              .alpha = options.lora_alpha > 0 ? options.lora_alpha : static_cast<double>(options.rank),
                              .target_modules = options.target_modules};
  return nn::LoraAdapter::create(denoiser, config, generator);
}

}  // namespace

Policy make_policy(const AlignOptions& options, at::ScalarType dtype, at::Device device) {
  Policy policy;
  const AdapterKind kind = options.adapter_kind();
  if (kind != AdapterKind::kFull) {
    policy.denoiser = load_frozen(options, dtype, device);
    for (auto& parameter : policy.denoiser->parameters()) parameter.set_requires_grad(false);
  }
  if (kind == AdapterKind::kLora) {
    const at::Generator generator = make_torch_generator(options.seed);
    policy.adapter = make_adapter(*policy.denoiser, options, generator);
    restrict_to_trained_timesteps(*policy.adapter, *policy.denoiser, options);
    policy.trainable = policy.adapter->parameters();
    if (options.train_text_encoder) {
      policy.text = TextPolicy::make(options, dtype, device, generator);
      for (auto& parameter : policy.text->parameters()) policy.trainable.push_back(std::move(parameter));
    }
  } else if (kind == AdapterKind::kUsers) {
    policy.users = make_user_adapter(*policy.denoiser, options);
  } else if (kind == AdapterKind::kGate) {
    policy.gate = make_gate(*policy.denoiser, options);
    policy.trainable = policy.gate->parameters();
  } else {
    policy.denoiser = load_start_denoiser(options.model, options, dtype, device);
    for (const auto& item : policy.denoiser->named_parameters()) policy.trainable.push_back({item.key(), item.value()});
  }
  policy.denoiser->set_gradient_checkpointing({options.gradient_checkpointing, options.activation_memory_gb});
  for (auto& [name, parameter] : policy.trainable) parameter.set_requires_grad(true);
  return policy;
}

std::shared_ptr<unet::Denoiser> load_start_denoiser(const fs::path& folder, const AlignOptions& options,
                                                    at::ScalarType dtype, at::Device device) {
  const fs::path weights = unet::denoiser_folder(folder);
  const bool has_init = !options.init_lora.empty() && folder == options.model;
  // An adapter that is merged makes weights anew, which then stay on the device.
  if (options.stream_weights && !has_init) return unet::load_streamed_denoiser(weights, dtype, device);
  auto denoiser = unet::load_denoiser(weights, dtype, device);
  if (has_init) {
    load_whole_lora(*denoiser, options.init_lora, "--init-lora");
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
  const fs::path denoiser = unet::denoiser_folder(from).filename();
  for (auto entry = fs::recursive_directory_iterator(from); entry != fs::recursive_directory_iterator(); ++entry) {
    const fs::path relative = fs::relative(entry->path(), from);
    std::error_code error;
    if (entry->is_directory()) {
      if (relative.filename().string().starts_with(".")) entry.disable_recursion_pending();
      continue;
    }
    const bool is_denoiser = *relative.begin() == denoiser;
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
  if (policy.users) {
    const SwappedWeights swapped(policy.trainable, weights);
    policy.users->save(options.output / "user_adapter.safetensors");
    return;
  }
  if (policy.gate) {
    const SwappedWeights swapped(policy.trainable, weights);
    policy.gate->save(options.output / "gated_lora.safetensors");
    return;
  }
  if (policy.adapter) {
    const SwappedWeights swapped(policy.trainable, weights);
    nn::save_lora(options.output / "pytorch_lora_weights.safetensors", policy.adapter.get(),
                  policy.text ? policy.text->first() : nullptr, nn::parse_lora_format(options.lora_format),
                  policy.text ? policy.text->second() : nullptr, policy.denoiser->info().component);
    return;
  }
  copy_model(options.model, options.output);
  TensorMap tensors;
  for (const auto& [name, tensor] : weights) tensors[name] = tensor;
  for (const auto& item : policy.denoiser->named_buffers()) tensors[item.key()] = item.value();
  write_safetensors(unet::denoiser_folder(options.output) / "diffusion_pytorch_model.safetensors", tensors,
                    {{"format", "pt"}});
}

}  // namespace prefusion::training

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/safetensors.h"
#include "nn/lora.h"
#include "nn/lora_metadata.h"
#include "nn/lora_names.h"

namespace prefusion::nn {
namespace {

struct Part {
  LoraComponent component;
  const LoraAdapter* adapter;
};

// CLIP layers go by their classic names, which begin with "text_model."; newer transformers drop it when reading.
std::string public_path(const Part& part, const std::string& path) {
  const bool is_flattened = !is_denoiser(part.component) && path.starts_with("encoder.layers.");
  return is_flattened ? "text_model." + path : path;
}

void add_diffusers(const Part& part, TensorMap& tensors, Json& description) {
  const std::string component = component_name(part.component);
  for (const auto& entry : part.adapter->entries()) {
    const std::string path = component + "." + public_path(part, entry.path);
    tensors.emplace(path + ".lora_A.weight", entry.A.detach());
    tensors.emplace(path + ".lora_B.weight", entry.B.detach());
  }
  description.update(describe_adapter(*part.adapter, component));
}

void add_kohya(const Part& part, bool has_two_encoders, TensorMap& tensors) {
  std::string prefix = part.component == LoraComponent::kTransformer ? "lora_transformer_" : "lora_unet_";
  if (part.component == LoraComponent::kTextEncoder) prefix = has_two_encoders ? "lora_te1_" : "lora_te_";
  if (part.component == LoraComponent::kTextEncoder2) prefix = "lora_te2_";
  for (const auto& entry : part.adapter->entries()) {
    std::string path = public_path(part, entry.path);
    std::replace(path.begin(), path.end(), '.', '_');
    tensors.emplace(prefix + path + ".lora_down.weight", entry.A.detach());
    tensors.emplace(prefix + path + ".lora_up.weight", entry.B.detach());
    tensors.emplace(prefix + path + ".alpha", at::scalar_tensor(entry.alpha, at::kFloat));
  }
}

Metadata kohya_metadata(const LoraAdapter& adapter) {
  const LoraEntry& entry = adapter.entries().front();
  return {{"format", "pt"},
          {"ss_network_module", "networks.lora"},
          {"ss_network_dim", std::to_string(entry.rank())},
          {"ss_network_alpha", concat(entry.alpha)}};
}

LoraComponent parse_denoiser(const std::string& component) {
  if (component == component_name(LoraComponent::kUnet)) return LoraComponent::kUnet;
  check_usage(component == component_name(LoraComponent::kTransformer), "the denoiser of a LoRA file is unet or ",
              "transformer, not '", component, "'");
  return LoraComponent::kTransformer;
}

}  // namespace

LoraFormat parse_lora_format(const std::string& name) {
  if (name == "diffusers") return LoraFormat::kDiffusers;
  if (name == "kohya") return LoraFormat::kKohya;
  fail_usage("LoRA format '", name, "' is not known; it is diffusers or kohya");
}

void save_lora(const std::filesystem::path& path, const LoraAdapter* denoiser, const LoraAdapter* text_encoder,
               LoraFormat format, const LoraAdapter* text_encoder_2, const std::string& component) {
  const std::array<Part, 3> parts = {{{parse_denoiser(component), denoiser},
                                      {LoraComponent::kTextEncoder, text_encoder},
                                      {LoraComponent::kTextEncoder2, text_encoder_2}}};
  TensorMap tensors;
  Json description = Json::object();
  Metadata metadata;
  for (const auto& part : parts) {
    if (!part.adapter || part.adapter->entries().empty()) continue;
    if (format == LoraFormat::kDiffusers) {
      add_diffusers(part, tensors, description);
    } else {
      add_kohya(part, text_encoder_2 != nullptr, tensors);
      if (metadata.empty()) metadata = kohya_metadata(*part.adapter);
    }
  }
  check_usage(!tensors.empty(), path.string(), ": there is no adapter to save");
  if (format == LoraFormat::kDiffusers) {
    metadata = {{"format", "pt"}, {kLoraMetadataKey, description.dump(2, ' ', /*ensure_ascii=*/true)}};
  }
  if (denoiser && denoiser->config().timestep_range) {
    metadata[kTimestepRangeKey] = denoiser->config().timestep_range->text();
  }
  write_safetensors(path, tensors, metadata);
}

}  // namespace prefusion::nn

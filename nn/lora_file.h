#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "core/safetensors.h"
#include "nn/lora_metadata.h"
#include "nn/lora_names.h"
#include "nn/timestep_range.h"

// A LoRA file by itself, before any network is known. Dialects:
//   diffusers      unet.<path>.lora_A.weight / lora_B.weight, transformer., text_encoder. and text_encoder_2. likewise;
//                  scaling from
//                  the header's lora_adapter_metadata, else alpha = rank
//   peft           [base_model.model.]<path>.lora_A[.<adapter>].weight with adapter_config.json beside it
//   diffusers-old  <path>.processor.to_q_lora.down.weight, <path>.lora.down.weight,
//   <path>.lora_linear_layer.down.weight kohya          lora_unet_<path with _>.lora_down.weight, lora_te_..., .alpha;
//   block names of diffusers or of the
//                  original Stable Diffusion code
namespace prefusion::nn {

struct LoraFileModule {
  LoraComponent component = LoraComponent::kUnet;
  std::string name;  // as the file writes it
  at::Tensor A;      // views of the file's mapping
  at::Tensor B;
  std::optional<double> alpha;  // from an ".alpha" tensor
  std::vector<std::string> keys;

  int64_t rank() const { return A.size(0); }
};

struct LoraFile {
  std::filesystem::path path;
  LoraDialect dialect = LoraDialect::kDiffusers;
  std::vector<LoraFileModule> modules;  // sorted by component, then name
  std::vector<std::string> other_keys;  // no part of a LoRA
  Metadata metadata;
  Json description;                             // lora_adapter_metadata or adapter_config.json; null without one
  bool description_has_prefixes = true;         // false for an adapter_config.json
  std::optional<TimestepRange> timestep_range;  // of the denoiser's adapter
};

// The safetensors file of a LoRA: `path` itself, or in a folder pytorch_lora_weights.safetensors,
// adapter_model.safetensors (PEFT), or the only *.safetensors there is. Input error when there is none.
std::filesystem::path find_lora_file(const std::filesystem::path& path);

// The component that names the denoiser in this file: the transformer where any key does, else the UNet.
LoraComponent denoiser_component(const LoraFile& file);

// What the file's description says about one of its components; empty where there is none.
LoraDescription description_of(const LoraFile& file, LoraComponent component);

// Reads and groups a LoRA file. Input error for a damaged file, a half of a pair, ranks that disagree, an alpha that is
// no number, and other methods than LoRA.
LoraFile read_lora_file(const std::filesystem::path& path);

}  // namespace prefusion::nn

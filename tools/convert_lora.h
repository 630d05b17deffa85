#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "layouts/network_layouts.h"
#include "nn/lora_file.h"

namespace prefusion::tools {

// A LoRA of --lora, its layers under diffusers' names as far as those can be told without a network, every alpha known.
struct ScaledLora {
  nn::LoraFile file;
  double scale = 1.0;
};

// Reads PATH[:SCALE]. `denoiser_config` is the config of the network the LoRA belongs to, where one is at hand (else
// null): it tells how the original code numbers a UNet's blocks. Input error for a file that is no LoRA.
ScaledLora read_scaled_lora(const std::string& argument, const Json& denoiser_config);

// One LoRA that does what all of them do together. A single one keeps its tensors, its scale goes into alpha. Several
// are stacked: the rank is the sum, factors of unlike scales go into B. With `rank`, the best approximation of that
// rank by singular values of what is added to each layer.
std::vector<nn::LoraFileModule> combine_loras(const std::vector<ScaledLora>& loras, int64_t rank);

struct LoraOutput {
  std::string format;        // diffusers, peft, kohya, comfyui
  std::string kohya_blocks;  // auto, diffusers, sgm
  std::optional<nn::TimestepRange> timestep_range;
  std::optional<at::ScalarType> dtype;  // absent: as they are
  Json denoiser_config;                 // as above
};

// The tensors and the header of a LoRA file in a dialect. Usage error for a dialect that cannot say it.
struct LoraContent {
  TensorMap tensors;
  Metadata metadata;
  Json adapter_config;  // of peft, a file of its own
};
LoraContent lora_content(const std::vector<nn::LoraFileModule>& modules, const LoraOutput& output);

// The numbering of a UNet of the original code. Without a config, that of SD 1 and 2, or of SDXL.
layouts::UNetShape original_unet_shape(const Json& denoiser_config, bool is_xl);

// Whether a UNet's LoRA is one of SDXL: it has a second text encoder, or more than one transformer block in a place.
bool is_xl_lora(const std::vector<nn::LoraFileModule>& modules);

}  // namespace prefusion::tools

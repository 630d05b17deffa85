#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "nn/lora.h"
#include "nn/user_adapter.h"
#include "pipelines/text_to_image.h"

namespace prefusion::tools {

// An adapter of the command line.
struct AdapterArgument {
  std::filesystem::path path;
  double scale = 1.0;
};

// PATH or PATH:SCALE; a colon that is part of an existing path is none. Usage error, naming the flag, when SCALE is no
// number.
AdapterArgument parse_lora_argument(const std::string& text, const char* flag = "--lora");

// ID[:WEIGHT],...: the users of --user with their weights, 1 by default. A colon belongs to the name where what follows
// is no number. Usage error for an empty name.
std::vector<nn::WeightedUser> parse_user_argument(const std::string& text);

// Attaches a user adapter, PATH[:SCALE], to the denoiser of a pipeline; the states of the users asked for, [M, U].
at::Tensor attach_user_adapter(const std::string& adapter, const std::string& users,
                               const pipelines::PipelineComponents& components);

// Which networks LoRAs may change.
enum class LoraReach { kAll, kDenoiserAlone };

// Hangs LoRAs, PATH[:SCALE] each, given under `flag`, on the networks of a pipeline; those of the denoiser. Input error
// for one that reaches further than it may.
std::vector<std::shared_ptr<nn::LoraAdapter>> attach_loras(const std::vector<std::string>& loras,
                                                           const pipelines::PipelineComponents& components,
                                                           const char* flag = "--lora",
                                                           LoraReach reach = LoraReach::kAll);

// Brings the denoiser's weights to base + strength (weights - base), computed in fp32, with those of the model folder
// `base_dir`: 1 leaves them, 0 is the base, more goes beyond what was learnt. Input error when they do not fit.
void apply_alignment_strength(unet::Denoiser& denoiser, const std::filesystem::path& base_dir, double strength);

}  // namespace prefusion::tools

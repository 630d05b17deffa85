#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/prompt_list.h"
#include "pipelines/text_to_image.h"
#include "text/prompt_encoder.h"
#include "tools/adapter_arguments.h"
#include "tools/preview.h"
#include "tools/shard.h"
#include "tools/start_picture.h"

namespace prefusion::tools {

// What `prefusion generate` is asked for.
struct GenerateImagesOptions {
  std::filesystem::path model;
  std::optional<std::string> prompt;  // exactly one of prompt and prompts_file
  std::filesystem::path prompts_file;
  std::string negative_prompt;
  int64_t num_images = 1;  // a prompt
  uint64_t seed = 0;       // of a prompt's first picture; the next ones count up
  int64_t batch_size = 4;
  pipelines::GenerateOptions sampling;
  StartPictureOptions start;
  std::vector<std::string> loras;           // PATH[:SCALE]
  std::vector<std::string> negative_loras;  // PATH[:SCALE], for negative prompts in place of `loras`
  std::filesystem::path base;               // model folder that `alignment_strength` counts from; may be empty
  double alignment_strength = 1.0;
  std::string user_adapter;  // PATH[:SCALE], or empty
  std::string user;          // ID[:WEIGHT],...: whom the pictures are for; empty: the empty user
  text::PromptEncoderOptions text;
  bool streams_weights = false;  // weights of blocks stay in host memory
  bool uses_cuda_graphs = false;
  vae::Tiling tiling = vae::Tiling::kAuto;
  Shard shard;  // of the prompts
  PreviewOptions preview;
  std::filesystem::path output;         // FILE.png, or a folder
  std::filesystem::path contact_sheet;  // FILE.png; empty: none
  bool resume = false;
  bool shows_progress = true;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

// One file to write.
struct PictureJob {
  pipelines::ImageRequest request;
  std::filesystem::path file;
};

// The files for all pictures, prompt by prompt: OUTPUT itself when it is a .png name, else OUTPUT/00000-000.png with as
// many digits as it takes, so that sorting by name gives prompt order, then image order. Usage error for a .png name
// with more than one picture.
std::vector<PictureJob> plan_pictures(const GenerateImagesOptions& options,
                                      const std::vector<data::PromptEntry>& prompts);

// Generates the shard's pictures and writes each atomically; returns their files in order, those kept by `resume`
// included.
std::vector<std::filesystem::path> generate_images(const GenerateImagesOptions& options);

}  // namespace prefusion::tools

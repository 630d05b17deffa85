#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/prompt_list.h"
#include "nn/user_adapter.h"
#include "pipelines/text_to_image.h"

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
  std::vector<std::string> loras;  // PATH[:SCALE]
  std::string user_adapter;        // PATH[:SCALE], or empty
  std::string user;                // ID[:WEIGHT],...: whom the pictures are for; empty: the empty user
  int64_t clip_skip = 0;
  std::filesystem::path output;         // FILE.png, or a folder
  std::filesystem::path contact_sheet;  // FILE.png; empty: none
  bool resume = false;
  bool shows_progress = true;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

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

// Hangs LoRAs, PATH[:SCALE] each, on the networks of a pipeline.
void attach_loras(const std::vector<std::string>& loras, const pipelines::PipelineComponents& components);

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

// The picture's settings: JSON for the `prefusion` text chunk, and the text that other programs know as `parameters`.
std::string settings_json(const GenerateImagesOptions& options, const pipelines::ImageRequest& request,
                          pipelines::ImageSize size, const std::string& scheduler_name);
std::string parameters_text(const std::string& settings);

// Generates all pictures and writes each atomically; returns the files in order, those kept by `resume` included.
std::vector<std::filesystem::path> generate_images(const GenerateImagesOptions& options);

}  // namespace prefusion::tools

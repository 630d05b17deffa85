#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "core/tensor_source.h"
#include "layouts/single_file.h"

namespace prefusion::tools {

// A network of a model on its way through `convert`: weights in diffusers' names, loaded when they are written.
struct ModelPart {
  std::string folder;  // "unet"
  Json config;
  bool is_config_inferred = false;
  TensorSources weights;
  std::string stem;                                  // of its weight file
  const layouts::ComponentLayout* layout = nullptr;  // null for networks without a single-file layout
};

// A model read from a diffusers folder or a single file.
struct ConvertibleModel {
  std::filesystem::path source;
  bool is_folder = false;
  std::optional<layouts::Family> family;  // of a folder: where it has a single-file layout
  std::vector<ModelPart> parts;
  Json model_index;                                     // null where the model is no complete pipeline
  Json scheduler;                                       // of a single file without --config
  std::map<std::string, std::filesystem::path> copies;  // what else belongs to the folder, from where
  std::vector<std::string> notes;                       // what a user should know

  ModelPart* find(const std::string& folder);
};

struct ReadModelOptions {
  std::filesystem::path config;  // a diffusers folder whose configs, tokenizers and scheduler are used; may be empty
  std::string prediction_type;   // of the scheduler; empty: the published one
  bool use_ema = false;
};

// Reads a diffusers folder or a single file. Nothing is loaded but names, shapes and configs. Input error when
// something is missing, does not fit, or belongs to another architecture.
ConvertibleModel read_convertible(const std::filesystem::path& path, const ReadModelOptions& options);

// The bytes that writing the model moves.
size_t model_bytes(const ConvertibleModel& model);

// Writes a folder, or a single file: whole or not at all. `on_written` hears the bytes of weights so far.
using WriteProgress = std::function<void(size_t bytes)>;
void write_model_folder(const ConvertibleModel& model, const std::filesystem::path& output, bool overwrite,
                        const WriteProgress& on_written);
void write_model_file(const ConvertibleModel& model, const std::filesystem::path& output,
                      const WriteProgress& on_written);

// What write_model_folder would refuse, said before anything is loaded.
void check_can_be_folder(const ConvertibleModel& model);
// The tensors of the single file. Input error for a model that has no such layout.
TensorSources single_file_tensors(const ConvertibleModel& model);

}  // namespace prefusion::tools

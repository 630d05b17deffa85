#include "tools/inspect.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "core/error.h"
#include "core/safetensors.h"
#include "nn/lora_gate.h"
#include "nn/lora_names.h"
#include "nn/user_adapter.h"
#include "tools/commands.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

bool holds_lora_keys(const fs::path& file) {
  const SafetensorsFile tensors = SafetensorsFile::open(file);
  return std::any_of(tensors.entries().begin(), tensors.entries().end(), [](const auto& entry) {
    const std::string& key = entry.first;
    return key.find("lora") != std::string::npos || key.find("lokr_") != std::string::npos ||
           key.find("hada_") != std::string::npos;
  });
}

bool is_lora_folder(const fs::path& folder) {
  if (fs::exists(folder / "pytorch_lora_weights.safetensors")) return true;
  if (fs::exists(folder / "adapter_model.safetensors")) return true;
  std::vector<fs::path> files;
  for (const auto& item : fs::directory_iterator(folder)) {
    if (item.path().extension() == ".safetensors") files.push_back(item.path());
  }
  return files.size() == 1 && holds_lora_keys(files.front());
}

Inspection inspect_folder(const fs::path& folder, const InspectOptions& options) {
  const fs::path model = options.model;
  if (fs::exists(folder / "state.json")) return inspect_checkpoint(folder);
  if (fs::exists(folder / "run.toml") || fs::exists(folder / "metrics.jsonl") ||
      fs::is_directory(folder / "checkpoints")) {
    return inspect_run(folder, model);
  }
  if (fs::exists(folder / "model_index.json")) return inspect_model(folder);
  if (is_lora_folder(folder)) return inspect_lora(folder, model);
  if (fs::exists(folder / "config.json")) return inspect_component(folder);
  return inspect_dataset(folder, options.max_groups);
}

Inspection inspect_file(const fs::path& file, const InspectOptions& options) {
  const std::string extension = file.extension().string();
  if (extension == ".safetensors") {
    try {
      const Metadata metadata = SafetensorsFile::open(file).metadata();
      if (nn::is_user_adapter(metadata)) return inspect_user_adapter(file, options.model);
      if (nn::is_lora_gate(metadata)) return inspect_lora_gate(file, options.model);
      if (!holds_lora_keys(file)) return inspect_tensors(file);
    } catch (const Error& error) {
      Inspection inspection{.path = file.string(), .kind = "tensors"};
      inspection.problems.push_back(error.what());
      return inspection;
    }
    return inspect_lora(file, options.model);
  }
  if (extension == ".h5" || extension == ".hdf5") return inspect_cache(file);
  if (extension == ".parquet" || extension == ".jsonl" || extension == ".json")
    return inspect_dataset(file, options.max_groups);
  fail_input(file.string(),
             ": a file of this kind cannot be inspected; give a model folder, a .safetensors, .parquet, ",
             ".jsonl, .json or .h5 file, or the folder of a run or a dataset");
}

void run(const InspectOptions& options, const CLI::App&) {
  const Inspection inspection = inspect(options);
  const std::string text = options.json
                               ? to_json(inspection).dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n"
                               : to_text(inspection);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  check_input(inspection.sound(), inspection.path,
              ": not sound: ", inspection.problems.empty() ? "" : inspection.problems.front(),
              inspection.problems.size() > 1 ? concat(" (and ", inspection.problems.size() - 1, " more)") : "");
}

}  // namespace

void add_inspect_options(CLI::App& app, InspectOptions& options) {
  app.add_option("path", options.path,
                 "Model folder, component folder, LoRA, user adapter, .safetensors, dataset (Parquet, JSONL, folder), "
                 "cache (.h5), "
                 "checkpoint or output folder of a run")
      ->required();
  app.add_option("--model", options.model, "Model folder whose layers a LoRA or user adapter is matched against");
  app.add_option("--max-groups", options.max_groups,
                 "Groups of a dataset whose images are read and decoded, evenly spread; 0 reads all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", options.json, "Print one JSON object instead of text");
}

Inspection inspect(const InspectOptions& options) {
  const fs::path path = options.path;
  check_input(fs::exists(path), options.path, ": no such file or folder");
  return fs::is_directory(path) ? inspect_folder(path, options) : inspect_file(path, options);
}

void add_inspect(CLI::App& root) {
  add_command<InspectOptions>(root, "inspect",
                              "Says what a model, LoRA, dataset, cache or checkpoint holds, and whether it is sound",
                              add_inspect_options, run);
}

}  // namespace prefusion::tools

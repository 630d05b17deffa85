#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace prefusion::tools {

// Facts keep the order they were found in: it is the order they are printed in.
using OrderedJson = nlohmann::ordered_json;

// What `prefusion inspect` found out about one path. It is sound when there are no problems; notes are worth knowing
// and harmless.
struct Inspection {
  std::string path;
  std::string kind;  // "model", "component", "lora", "gated LoRA", "user adapter",
                     // "dataset", "cache", "checkpoint", "run", "tensors"
  OrderedJson facts = OrderedJson::object();
  std::vector<std::string> problems;
  std::vector<std::string> notes;

  bool sound() const { return problems.empty(); }
  // Takes over the facts of a part under `key`, and its problems and notes.
  void add_part(const std::string& key, const Inspection& part);
};

OrderedJson to_json(const Inspection& inspection);
// Lines for people: values aligned, lists of objects as tables.
std::string to_text(const Inspection& inspection);

// One function a kind. None throws for what is wrong with the contents: that becomes a problem.
Inspection inspect_model(const std::filesystem::path& folder);
Inspection inspect_component(const std::filesystem::path& folder);
// `model` (a model folder, may be empty) is what the LoRA's names and shapes are matched against.
Inspection inspect_lora(const std::filesystem::path& path, const std::filesystem::path& model);
Inspection inspect_lora_gate(const std::filesystem::path& file, const std::filesystem::path& model);
Inspection inspect_user_adapter(const std::filesystem::path& file, const std::filesystem::path& model);
Inspection inspect_tensors(const std::filesystem::path& file);
Inspection inspect_run(const std::filesystem::path& folder, const std::filesystem::path& model);
Inspection inspect_checkpoint(const std::filesystem::path& folder);
// Reads and decodes the images of at most `max_groups` groups, evenly spread (0: of all).
Inspection inspect_dataset(const std::filesystem::path& path, int64_t max_groups);
Inspection inspect_cache(const std::filesystem::path& file);

// "tensors", "parameters", "dtype" and "bytes" of some tensors. Those with values that are not finite become a problem
// of `inspection`; `where` names the file or folder in it.
OrderedJson tensor_facts(const TensorMap& tensors, const std::string& where, Inspection& inspection);

}  // namespace prefusion::tools

#include <toml++/toml.h>
#include <algorithm>
#include <fstream>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"
#include "tools/inspection.h"
#include "training/checkpoint.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

OrderedJson toml_json(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* number = node.as_floating_point()) return number->get();
  if (const auto* flag = node.as_boolean()) return flag->get();
  OrderedJson list = OrderedJson::array();
  if (const auto* array = node.as_array()) {
    for (const auto& element : *array) list.push_back(toml_json(element));
  }
  return list;
}

// The settings that say what a run was.
void add_config(const fs::path& path, Inspection& inspection) {
  if (!fs::exists(path)) return;
  try {
    const toml::table table = toml::parse_file(path.string());
    OrderedJson config = OrderedJson::object();
    for (const char* key :
         {"model", "data", "objective", "objective-args", "adapter", "rank", "lora-alpha", "target-modules", "beta",
          "kappa", "reference", "steps", "epochs", "batch-size", "accumulate", "lr", "resolution", "dtype", "seed"}) {
      if (const toml::node* node = table.get(key)) config[key] = toml_json(*node);
    }
    inspection.facts["config"] = config;
  } catch (const toml::parse_error& error) {
    inspection.problems.push_back(
        concat(path.string(), ": line ", error.source().begin.line, ": ", std::string(error.description())));
  }
}

struct MetricRows {
  int64_t count = 0;
  int64_t broken = 0;
  bool is_torn = false;  // the last line is incomplete: the run was killed while writing it
  Json first, last;
};

MetricRows read_rows(const fs::path& path) {
  MetricRows rows;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const bool is_whole = !file.eof();
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("step")) {
      if (is_whole) {
        ++rows.broken;
      } else {
        rows.is_torn = !line.empty();
      }
      continue;
    }
    if (rows.count++ == 0) rows.first = row;
    rows.last = row;
  }
  return rows;
}

void add_metrics(const fs::path& path, Inspection& inspection) {
  if (!fs::exists(path)) return;
  const MetricRows rows = read_rows(path);
  OrderedJson facts = OrderedJson::object();
  facts["rows"] = rows.count;
  if (rows.count > 0) {
    facts["first_step"] = rows.first["step"];
    facts["last_step"] = rows.last["step"];
    for (const char* key : {"loss", "accuracy", "margin", "grad_norm"}) {
      if (!rows.last.contains(key)) continue;
      facts[std::string("last_") + key] = rows.last[key];
      if (rows.last[key].is_null()) {
        inspection.problems.push_back(
            concat(path.string(), ": '", key, "' is not finite at step ", rows.last["step"].dump()));
      }
    }
  }
  inspection.facts["metrics"] = facts;
  if (rows.broken > 0)
    inspection.problems.push_back(concat(path.string(), ": ", rows.broken, " lines are no metrics rows"));
  if (rows.is_torn) inspection.notes.push_back(path.string() + ": the last line is incomplete; --resume drops it");
}

void add_checkpoints(const fs::path& folder, Inspection& inspection) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& item : fs::directory_iterator(folder / "checkpoints", ignored)) {
    const std::string name = item.path().filename().string();
    if (name.starts_with("step-")) found.push_back(item.path());
    if (name.starts_with("."))
      inspection.notes.push_back(item.path().string() + ": left over from an interrupted write");
  }
  std::sort(found.begin(), found.end());
  OrderedJson rows = OrderedJson::array();
  for (const auto& path : found) {
    Inspection checkpoint = inspect_checkpoint(path);
    OrderedJson row;
    row["name"] = path.filename().string();
    for (const char* key : {"step", "parameters", "bytes"}) {
      if (checkpoint.facts.contains(key)) row[key] = checkpoint.facts[key];
    }
    row["state"] = checkpoint.sound() ? "ok" : "unsound";
    inspection.problems.insert(inspection.problems.end(), checkpoint.problems.begin(), checkpoint.problems.end());
    rows.push_back(std::move(row));
  }
  inspection.facts["checkpoints"] = rows;
}

}  // namespace

Inspection inspect_checkpoint(const fs::path& folder) {
  Inspection inspection{.path = folder.string(), .kind = "checkpoint"};
  try {
    const training::Checkpoint checkpoint = training::load_checkpoint(folder);
    inspection.facts["step"] = checkpoint.step;
    OrderedJson groups = OrderedJson::array();
    int64_t parameters = 0;
    int64_t bytes = 0;
    for (const auto& [name, tensors] : checkpoint.tensors) {
      OrderedJson row;
      row["name"] = name;
      row.update(tensor_facts(tensors, (folder / (name + ".safetensors")).string(), inspection));
      parameters += row["parameters"].get<int64_t>();
      bytes += row["bytes"].get<int64_t>();
      groups.push_back(std::move(row));
    }
    inspection.facts["tensors"] = groups;
    inspection.facts["parameters"] = parameters;
    inspection.facts["bytes"] = bytes;
    OrderedJson keys = OrderedJson::array();
    for (const auto& [key, value] : checkpoint.state.items()) keys.push_back(key);
    inspection.facts["state"] = keys;
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  } catch (const Json::exception& error) {
    inspection.problems.push_back((folder / "state.json").string() + ": " + error.what());
  }
  return inspection;
}

Inspection inspect_run(const fs::path& folder, const fs::path& model) {
  Inspection inspection{.path = folder.string(), .kind = "run"};
  add_config(folder / "run.toml", inspection);
  add_metrics(folder / "metrics.jsonl", inspection);
  add_checkpoints(folder, inspection);
  if (fs::exists(folder / "user_adapter.safetensors")) {
    inspection.add_part("user_adapter", inspect_user_adapter(folder / "user_adapter.safetensors", model));
  } else if (fs::exists(folder / "gated_lora.safetensors")) {
    inspection.add_part("gated_lora", inspect_lora_gate(folder / "gated_lora.safetensors", model));
  } else if (fs::exists(folder / "pytorch_lora_weights.safetensors")) {
    inspection.add_part("lora", inspect_lora(folder / "pytorch_lora_weights.safetensors", model));
  } else if (fs::exists(folder / "model_index.json")) {
    inspection.add_part("model", inspect_model(folder));
  } else {
    inspection.notes.push_back("there are no trained weights yet: the run has not ended");
  }
  return inspection;
}

}  // namespace prefusion::tools

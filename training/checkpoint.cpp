#include "training/checkpoint.h"

#include <cstdio>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

std::string step_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%06lld", static_cast<long long>(step));
  return name;
}

// Steps of the whole checkpoints in a folder, ascending.
std::map<int64_t, fs::path> list_checkpoints(const fs::path& folder) {
  std::map<int64_t, fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || name.size() < 11 || name.find_first_not_of("0123456789", 5) != std::string::npos) {
      continue;
    }
    if (fs::exists(entry.path() / "state.json")) found[std::stoll(name.substr(5))] = entry.path();
  }
  return found;
}

}  // namespace

void save_checkpoint(const fs::path& folder, const Checkpoint& checkpoint, int64_t keep, int64_t protected_step) {
  const fs::path root = folder / "checkpoints";
  const fs::path destination = root / step_name(checkpoint.step);
  const fs::path temporary = root / ("." + step_name(checkpoint.step) + ".writing");
  make_folder(root);
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  make_folder(temporary);
  Json state = checkpoint.state;
  state["step"] = checkpoint.step;
  state["format"] = 1;
  state["files"] = Json::array();
  for (const auto& [name, tensors] : checkpoint.tensors) {
    write_safetensors(temporary / (name + ".safetensors"), tensors);
    state["files"].push_back(name);
  }
  write_file(temporary / "state.json", state.dump(2) + "\n");
  fs::remove_all(destination, ignored);
  std::error_code error;
  fs::rename(temporary, destination, error);
  check_run(!error, destination.string(), ": cannot be written (", error.message(), ")");
  sync_folder(root);

  auto all = list_checkpoints(folder);
  all.erase(protected_step);
  while (keep > 0 && static_cast<int64_t>(all.size()) > keep) {
    fs::remove_all(all.begin()->second, ignored);
    all.erase(all.begin());
  }
}

std::optional<fs::path> latest_checkpoint(const fs::path& folder) {
  const auto all = list_checkpoints(folder);
  if (all.empty()) return std::nullopt;
  return all.rbegin()->second;
}

Checkpoint load_checkpoint(const fs::path& path) {
  check_input(fs::exists(path / "state.json"), path.string(), ": is no checkpoint (it has no state.json)");
  Checkpoint checkpoint;
  checkpoint.state = read_json(path / "state.json");
  check_input(checkpoint.state.is_object() && checkpoint.state.value("format", 0) == 1, (path / "state.json").string(),
              ": unknown checkpoint format");
  checkpoint.step = checkpoint.state.value("step", int64_t{0});
  for (const Json& name : checkpoint.state["files"]) {
    const auto stem = name.get<std::string>();
    checkpoint.tensors[stem] = read_safetensors(path / (stem + ".safetensors"));
  }
  return checkpoint;
}

}  // namespace prefusion::training

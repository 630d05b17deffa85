#include "training/checkpoint.h"

#include <fcntl.h>

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
    const bool is_step = name.starts_with("step-") && name.size() >= 11 && name.size() <= 20 &&
                         name.find_first_not_of("0123456789", 5) == std::string::npos;
    if (!is_step) continue;
    if (fs::exists(entry.path() / "state.json")) found[std::stoll(name.substr(5))] = entry.path();
  }
  return found;
}

// Puts a whole folder in its place in one step, also when an older one is there: at every moment one of them is.
void replace_folder(const fs::path& temporary, const fs::path& destination) {
  const bool exchanged = ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, destination.c_str(), RENAME_EXCHANGE) == 0;
  std::error_code error;
  if (exchanged) {
    fs::remove_all(temporary, error);
    return;
  }
  fs::remove_all(destination, error);  // nothing is there, or a file system that cannot exchange
  fs::rename(temporary, destination, error);
  check_run(!error, destination.string(), ": cannot be written (", error.message(), ")");
}

// Folders that a killed run was still writing.
void remove_unfinished(const fs::path& root) {
  std::vector<fs::path> unfinished;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".step-") && name.ends_with(".writing")) unfinished.push_back(entry.path());
  }
  for (const auto& path : unfinished) fs::remove_all(path, ignored);
}

}  // namespace

void save_checkpoint(const fs::path& folder, const Checkpoint& checkpoint, int64_t keep, int64_t protected_step) {
  const fs::path root = folder / "checkpoints";
  const fs::path destination = root / step_name(checkpoint.step);
  const fs::path temporary = root / ("." + step_name(checkpoint.step) + ".writing");
  make_folder(root);
  remove_unfinished(root);
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
  replace_folder(temporary, destination);
  sync_folder(root);

  auto all = list_checkpoints(folder);
  all.erase(protected_step);
  std::error_code ignored;
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
  const std::string where = (path / "state.json").string();
  const Json& state = checkpoint.state;
  const Json none;
  const auto field = [&](const char* name) -> const Json& { return state.contains(name) ? state[name] : none; };
  check_input(state.is_object() && field("format") == 1, where, ": unknown checkpoint format");
  check_input(field("step").is_number_integer() && field("files").is_array(), where, ": 'step' or 'files' is missing");
  checkpoint.step = state["step"].get<int64_t>();
  for (const Json& name : state["files"]) {
    check_input(name.is_string() && name.get<std::string>().find('/') == std::string::npos, where, ": ", name.dump(),
                " is no file name");
    const auto stem = name.get<std::string>();
    checkpoint.tensors[stem] = read_safetensors(path / (stem + ".safetensors"));
  }
  return checkpoint;
}

}  // namespace prefusion::training

#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "core/json_config.h"
#include "core/safetensors.h"

namespace prefusion::training {

// Everything a run needs to go on exactly: named groups of tensors (one safetensors file each) and a JSON state.
struct Checkpoint {
  int64_t step = 0;
  std::map<std::string, TensorMap> tensors;  // "optimizer", "ema"
  Json state = Json::object();               // data position, guard statistics, the options that must not change
};

// Writes checkpoints/step-NNNNNN below `folder`: into a hidden folder beside, then renamed, so that it is whole or
// absent. Afterwards removes the oldest until `keep` are left (0 keeps all); `protected_step` is never removed.
void save_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint, int64_t keep,
                     int64_t protected_step = -1);

// The newest whole checkpoint below `folder`/checkpoints, or nothing.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& folder);

// Input error when the folder is no checkpoint.
Checkpoint load_checkpoint(const std::filesystem::path& path);

}  // namespace prefusion::training

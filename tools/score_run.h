#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "reward_models/reward_spec.h"

namespace prefusion::tools {

struct ScoreRunOptions {
  std::vector<reward_models::RewardSpec> rewards;
  std::vector<std::filesystem::path> inputs;
  bool recursive = false;
  std::filesystem::path image;  // a single picture instead of inputs
  std::optional<std::string> prompt;
  std::filesystem::path output;  // .jsonl, .csv or .parquet; empty: standard output
  bool resume = false;
  bool overwrite = false;
  bool details = false;
  std::string shard = "0/1";
  std::string max_bad = "50%";
  std::filesystem::path baseline;  // empty: none
  int64_t batch_size = 32;
  int workers = 0;  // 0: one a CPU
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  bool shows_progress = true;
};

// Scores all pictures of the inputs. Usage error for settings that do not go together or differ from those of the
// output that is resumed; input error when more pictures than max_bad allows cannot be scored; Interrupted after a
// signal, with all rows of finished batches kept.
void run_scoring(const ScoreRunOptions& options);

// Puts the shards of a run together in the order of its input. Input error when one is missing, twice there, unfinished
// or of another run; usage error when `output` exists and is not to be overwritten.
void merge_scores(const std::filesystem::path& output, const std::vector<std::filesystem::path>& parts, bool overwrite);

}  // namespace prefusion::tools

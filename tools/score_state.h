#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "reward_models/reward_spec.h"
#include "tools/score_row.h"

namespace prefusion::tools {

// A shard of the input: one of `count` contiguous blocks.
struct ScoreShard {
  int64_t index = 0;  // from 0
  int64_t count = 1;
};

// "I/N" with I from 0 to N - 1. Usage error otherwise.
ScoreShard parse_score_shard(const std::string& text);

// Items [begin, end) of `total` that a shard has. Borders lie on multiples of the batch size, so that shards score the
// very batches of an undivided run.
struct ScoreRange {
  int64_t begin = 0;
  int64_t end = 0;
};
ScoreRange shard_range(const ScoreShard& shard, int64_t total, int64_t batch_size);

// What stands in OUTPUT.state.json: everything that decides the rows of OUTPUT, and how far it has come.
struct ScoreState {
  Json rewards;  // [{"reward", "files", "options"}]
  std::string dtype;
  std::string device;               // "cpu" or "cuda"
  std::vector<std::string> inputs;  // absolute paths; of a single picture its path and prompt
  bool recursive = false;
  bool details = false;
  int64_t num_inputs = 0;  // items in all
  int64_t batch_size = 0;
  ScoreShard shard;
  ScoreLayout layout;
  bool finished = false;
  int64_t num_rows = 0;  // once finished
  int64_t num_bad = 0;
};

std::filesystem::path score_state_path(const std::filesystem::path& output);
void write_score_state(const std::filesystem::path& output, const ScoreState& state);
// Input error when the file is missing or malformed.
ScoreState read_score_state(const std::filesystem::path& output);

// Usage error that names what differs, with both values.
void check_same_scoring(const ScoreState& found, const ScoreState& wanted, const std::string& where,
                        bool with_shard = true);

// What the files of a reward hold, as hex: sizes and samples of them, all of small ones. Where they lie does not
// matter.
Json describe_reward(const reward_models::RewardSpec& spec);

}  // namespace prefusion::tools

#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace prefusion::data::filters {

// One row of a score file: a picture with its scores.
struct ScoreRow {
  std::string image;                  // path, or a place in a Parquet file
  std::optional<std::string> prompt;  // it was scored under
  bool has_error = false;             // it could not be scored
  std::map<std::string, double> scores;
};

// Reads a file of `image`, `prompt`, `error` and a number a reward: .jsonl, .csv (RFC 4180, names in the first line) or
// .parquet. Input error when it is none of these or cannot be read.
void read_score_rows(const std::filesystem::path& path, const std::function<void(const ScoreRow&)>& visit);

// The records of a CSV text: quoted fields may hold commas, line ends and doubled quotes. Input error, naming `where`,
// for a quote that is never closed.
std::vector<std::vector<std::string>> parse_csv(const std::string& text, const std::string& where);

}  // namespace prefusion::data::filters

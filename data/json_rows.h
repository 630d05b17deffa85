#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace prefusion::data {

// The rows of a JSON file, one value a line (.jsonl) or the elements of one array (.json). Only their places in the
// file are kept in memory.
class JsonRows {
 public:
  explicit JsonRows(std::filesystem::path path) : path_(std::move(path)) {}

  // Finds the rows and visits their text in order; blank lines are none. Input error when the file cannot be read or an
  // array is cut off.
  void scan(const std::function<void(int64_t row, std::string_view text)>& visit);

  // Reads a row again. Thread-safe. Input error when the file was changed.
  nlohmann::json parse(int64_t row) const;

  // "manifest.jsonl line 12", or "train.json row 3" of an array.
  std::string row_id(int64_t row) const;
  const std::filesystem::path& path() const { return path_; }
  // Where a picture named by a row lies: find_named_file().
  std::filesystem::path find_file(const std::string& name) const;

 private:
  struct Extent {
    int64_t begin = 0;
    int64_t size = 0;
  };

  std::vector<Extent> find_lines(std::string_view text) const;
  std::vector<Extent> find_elements(std::string_view text) const;

  std::filesystem::path path_;
  std::vector<Extent> rows_;
  std::vector<int64_t> line_numbers_;  // of JSONL rows, from 1; empty for an array
};

// Where a picture lies that the file `path` names: beside it, in the folder there that is called like the file (HPDv2
// keeps its pictures in train/ and test/), or in the folder above (ImageRewardDB: metadata in a folder beside images/).
// The place beside the file where it lies in none of them.
std::filesystem::path find_named_file(const std::filesystem::path& path, const std::string& name);

// The first row of a JSON file; nothing when there is none to be understood within the first megabyte.
std::optional<nlohmann::json> first_json_row(const std::filesystem::path& path);

}  // namespace prefusion::data

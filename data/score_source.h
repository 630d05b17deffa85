#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace prefusion::data {

// A picture to score and the prompt it is to be scored under.
struct ScoreItem {
  std::string image;                  // stable reference: a path, "pairs.parquet#12:jpg_0", "shard.tar#0001"
  std::optional<std::string> prompt;  // nothing where the data has none
  int64_t row = 0;                    // of its file or folder
  int64_t item = 0;                   // within the row
  std::filesystem::path path;         // where the encoded picture lies; empty when it is in `encoded`
  std::string encoded;                // bytes of the picture file
  std::string problem;                // why there is no picture; empty when there is one
};

// Pictures of one file or folder in a fixed order, read once from front to back with bounded memory. What cannot be
// read comes as an item with a problem, so that every reading gives the same items. Not thread-safe.
class ScoreSource {
 public:
  virtual ~ScoreSource() = default;

  // The next item; false at the end. Without `wants_picture` the pictures' bytes are not read, all else is the same.
  virtual bool next(ScoreItem& item, bool wants_picture) = 0;
};

// All pictures of several inputs, one input after the other.
class ScoreInputs {
 public:
  struct Options {
    bool recursive = false;  // folders of pictures: also the folders below
  };

  // Input error for a path that is missing or of no known kind.
  ScoreInputs(const std::vector<std::filesystem::path>& paths, const Options& options);

  bool next(ScoreItem& item, bool wants_picture);
  // The number of items; reads all but the pictures. Leaves next() at the first item.
  int64_t count();

 private:
  std::vector<std::filesystem::path> files_;
  Options options_;
  size_t next_file_ = 0;
  std::unique_ptr<ScoreSource> current_;
};

// The encoded picture of an item. Input error when the file cannot be read.
std::string read_picture(ScoreItem& item);

}  // namespace prefusion::data

#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "tests/support/temp_dir.h"

namespace prefusion::tests {

// A JSONL manifest in a folder of its own. The pictures it names need not exist until they are read.
class ManifestFile {
 public:
  explicit ManifestFile(const std::vector<std::string>& lines, const std::string& name = "rows.jsonl")
      : path_(folder_ / name) {
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    write_file(path_, text);
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

 private:
  TempDir folder_;
  std::filesystem::path path_;
};

}  // namespace prefusion::tests

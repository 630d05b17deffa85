#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "data/dataset.h"
#include "data/segment_cache.h"
#include "data/source.h"

namespace prefusion::data {

// Files and chosen/rejected folders behind a mix of paths, in a fixed order. Input error for a path that is missing or
// a folder that holds no preference data.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::filesystem::path>& paths);

// Opens sources that share one segment cache.
class SourceFactory {
 public:
  explicit SourceFactory(const DatasetOptions& options);

  // By content and extension. Input error when the file is of no known form.
  std::unique_ptr<PreferenceSource> open(const std::filesystem::path& path) const;

 private:
  DatasetOptions options_;
  std::shared_ptr<SegmentCache> cache_;
};

}  // namespace prefusion::data

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "data/dataset.h"
#include "data/source.h"

namespace prefusion::data {

// What one of several people said of a row.
struct UserRanks {
  std::string user;
  std::vector<double> ranks;  // lower is better
};

// A manifest row without the images' bytes.
struct ManifestRow {
  std::optional<std::string> prompt;
  std::vector<std::string> images;  // paths as written, one an item
  std::vector<std::string> masks;   // the same, or none
  std::vector<std::string> models;  // one an item, or none
  std::vector<int64_t> seeds;       // the same
  std::vector<UserRanks> annotations;
  ScannedRow scanned;  // all but its number and prompt
};

// Understands one row of any of the forms ManifestSource lists. Input error when it is of none of them; a row without a
// label, or with labels that contradict each other, comes back with that status.
ManifestRow parse_manifest_row(const Json& json, const DatasetOptions& options);

}  // namespace prefusion::data

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "data/source.h"

namespace prefusion::data {

// A manifest row without the images' bytes.
struct ManifestRow {
  std::optional<std::string> prompt;
  std::vector<std::string> images;  // paths as written, one an item
  std::vector<std::string> masks;   // the same, or none
  ScannedRow scanned;               // all but its number and prompt
};

// Understands one row of any of the forms ManifestSource lists; `score_name` as in DatasetOptions. Input error when it
// is of none of them; a row without a label, or with labels that contradict each other, comes back with that status.
ManifestRow parse_manifest_row(const Json& json, const std::string& score_name);

}  // namespace prefusion::data

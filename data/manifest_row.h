#pragma once

#include <string>
#include <vector>

#include "core/json_config.h"
#include "data/source.h"

namespace prefusion::data {

// A manifest row without the images' bytes.
struct ManifestRow {
  RowStatus status = RowStatus::kUsable;
  std::string prompt;
  std::vector<std::string> images;  // paths as written
  std::vector<double> labels;
  std::vector<double> ranks;
  bool labels_are_probabilities = false;
};

// Understands one row of any of the forms ManifestSource lists. Input error when it is of none of them; a row without a
// label, or with labels that contradict each other, comes back with that status.
ManifestRow parse_manifest_row(const Json& json);

}  // namespace prefusion::data

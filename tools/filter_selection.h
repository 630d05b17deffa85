#pragma once

#include "tools/filter_data.h"

namespace prefusion::tools {

// Scores the groups that are left (result.kept) by margin, quality and diversity, and cuts them down to
// --max-per-prompt and --keep, a share being one of `num_read` groups. Without either flag nothing is scored.
void select_groups(const FilterRequest& request, int64_t num_read, FilterResult& result);

}  // namespace prefusion::tools

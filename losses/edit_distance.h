#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace prefusion::losses {

// The one of `names` (not empty) with the fewest insertions, deletions and replacements from `name`.
std::string nearest_name(std::string_view name, const std::vector<std::string>& names);

}  // namespace prefusion::losses

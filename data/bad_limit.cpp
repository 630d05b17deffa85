#include "data/bad_limit.h"

#include <cmath>
#include <stdexcept>

#include "core/error.h"

namespace prefusion::data {

BadLimit parse_bad_limit(const std::string& text) {
  try {
    size_t used = 0;
    const double value = std::stod(text, &used);
    if (std::isfinite(value) && value >= 0) {
      if (used == text.size() && value == std::floor(value) && value < 1e15) {
        return BadLimit{.count = static_cast<int64_t>(value), .fraction = 0.0};
      }
      if (used + 1 == text.size() && text.back() == '%' && value <= 100) {
        return BadLimit{.count = 0, .fraction = value / 100};
      }
    }
  } catch (const std::logic_error&) {
    // not a number at all: the message below
  }
  fail_usage("'", text, "' is no limit for broken rows: give a count such as 12 or a share such as 1%");
}

}  // namespace prefusion::data

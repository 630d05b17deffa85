#include "core/statistics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace prefusion {

Proportion wilson_proportion(double successes, double count, double z) {
  check_usage(successes >= 0 && successes <= count, "successes must be between 0 and the count, got ", successes,
              " of ", count);
  if (count == 0) return {};
  const double rate = successes / count;
  const double shrink = 1 / (1 + z * z / count);
  const double centre = shrink * (rate + z * z / (2 * count));
  const double reach = shrink * z * std::sqrt(rate * (1 - rate) / count + z * z / (4 * count * count));
  return {.rate = rate, .low = std::clamp(centre - reach, 0.0, rate), .high = std::clamp(centre + reach, rate, 1.0)};
}

}  // namespace prefusion

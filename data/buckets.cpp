#include "data/buckets.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace prefusion::data {
namespace {

using images::PictureSize;

int64_t floor_to(int64_t value, int64_t step) {
  return value / step * step;
}

int64_t area(PictureSize size) {
  return size.height * size.width;
}

// Logarithm of height / width.
double log_ratio(PictureSize size) {
  return std::log(static_cast<double>(size.height)) - std::log(static_cast<double>(size.width));
}

double median_log_ratio(const std::vector<PictureSize>& pictures) {
  std::vector<double> ratios;
  for (const PictureSize& picture : pictures) ratios.push_back(log_ratio(picture));
  std::sort(ratios.begin(), ratios.end());
  const size_t middle = ratios.size() / 2;
  return ratios.size() % 2 == 1 ? ratios[middle] : (ratios[middle - 1] + ratios[middle]) / 2;
}

}  // namespace

std::vector<PictureSize> bucket_sizes(const BucketOptions& options) {
  const auto& [resolution, step, given_shortest, given_longest] = options;
  check_usage(step > 0, "--bucket-reso-steps ", step, ": must be positive");
  const int64_t square = floor_to(resolution, step);
  check_usage(square > 0, "--buckets: --resolution ", resolution, " is smaller than --bucket-reso-steps ", step);
  const int64_t longest = given_longest > 0 ? floor_to(given_longest, step) : 2 * square;
  const int64_t shortest =
      given_shortest > 0 ? (given_shortest + step - 1) / step * step : std::max(step, floor_to(resolution / 2, step));
  check_usage(shortest <= square && square <= longest, "--buckets: the square of ", square,
              " pixels must lie between --min-bucket-reso ", shortest, " and --max-bucket-reso ", longest);
  std::set<PictureSize> sizes = {{square, square}};
  for (int64_t side = shortest; side <= longest; side += step) {
    const int64_t other = std::min(longest, floor_to(resolution * resolution / side, step));
    if (other < shortest) continue;
    sizes.insert({side, other});
    sizes.insert({other, side});
  }
  std::vector<PictureSize> sorted(sizes.begin(), sizes.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](PictureSize a, PictureSize b) { return a.height * b.width < b.height * a.width; });
  return sorted;
}

PictureSize choose_bucket(const std::vector<PictureSize>& buckets, const std::vector<PictureSize>& pictures) {
  for (const PictureSize& picture : pictures) {
    check_input(picture.height > 0 && picture.width > 0, "the picture has no size: ", size_text(picture));
  }
  const double ratio = median_log_ratio(pictures);
  constexpr double kTie = 1e-9;
  PictureSize best = buckets.front();
  for (const PictureSize& bucket : buckets) {
    const double gain = std::abs(log_ratio(best) - ratio) - std::abs(log_ratio(bucket) - ratio);
    if (gain > kTie || (gain > -kTie && area(bucket) > area(best))) best = bucket;
  }
  return best;
}

std::string size_text(PictureSize size) {
  return concat(size.width, "x", size.height);
}

}  // namespace prefusion::data

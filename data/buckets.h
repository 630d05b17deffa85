#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "images/upright_size.h"

// Sizes for pictures of different shapes (as NovelAI and kohya's scripts have them): instead of cutting every picture
// to a square, it is cut to the one of a set of sizes of about equal area that is closest to its shape.
namespace prefusion::data {

// Pixels.
struct BucketOptions {
  int64_t resolution = 512;  // no bucket has a larger area than a square of this side
  int64_t step = 64;         // sides are multiples of this
  int64_t shortest = 0;      // side of a bucket; 0: half of the resolution, or the step
  int64_t longest = 0;       // 0: twice the resolution
};

// All sizes: the square, and for every side between shortest and longest the largest other side that the area leaves.
// In the order of height / width. Usage error when there is none.
std::vector<images::PictureSize> bucket_sizes(const BucketOptions& options);

// The bucket of a group: that whose aspect ratio is nearest (in its logarithm, so that tall and wide are alike) to the
// median of the pictures'; of an even number the middle two's geometric mean. Ties go to the larger area.
images::PictureSize choose_bucket(const std::vector<images::PictureSize>& buckets,
                                  const std::vector<images::PictureSize>& pictures);

std::string size_text(images::PictureSize size);  // "832x1216", width first

}  // namespace prefusion::data

#include "data/buckets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/transform.h"
#include "tests/core/expect_error.h"

namespace prefusion::data {
namespace {

using images::PictureSize;
using tests::error_message;
using tests::mentions;

bool contains(const std::vector<PictureSize>& sizes, PictureSize size) {
  return std::find(sizes.begin(), sizes.end(), size) != sizes.end();
}

// Written as width x height, as users know them.
PictureSize wide(int64_t width, int64_t height) {
  return {height, width};
}

TEST(BucketSizes, HoldTheSizesSdxlWasTrainedOn) {
  const auto sizes = bucket_sizes({.resolution = 1024});
  for (const PictureSize& size : {wide(1024, 1024), wide(1152, 896), wide(1216, 832), wide(1344, 768), wide(1536, 640),
                                  wide(640, 1536), wide(832, 1216), wide(2048, 512)}) {
    EXPECT_TRUE(contains(sizes, size)) << size_text(size);
  }
  EXPECT_EQ(std::set<PictureSize>(sizes.begin(), sizes.end()).size(), sizes.size());
  for (const auto& [height, width] : sizes) {
    EXPECT_TRUE(height % 64 == 0 && width % 64 == 0);
    EXPECT_LE(height * width, 1024 * 1024);
    EXPECT_GT(height * width, 1024 * 1024 * 9 / 10);
    EXPECT_TRUE(contains(sizes, {width, height}));
  }
}

TEST(BucketSizes, ObeyTheirLimits) {
  for (const auto& [height, width] : bucket_sizes({.resolution = 512, .step = 32, .shortest = 300, .longest = 700})) {
    EXPECT_GE(std::min(height, width), 320);
    EXPECT_LE(std::max(height, width), 672);
    EXPECT_EQ((height | width) % 32, 0);
  }
  EXPECT_EQ(bucket_sizes({.resolution = 64, .step = 64}), (std::vector{PictureSize{64, 64}}));
  const auto refusal = [](BucketOptions options) {
    return error_message(ErrorClass::kUsage, [&] { bucket_sizes(options); });
  };
  EXPECT_TRUE(mentions(refusal({.resolution = 48}), "--bucket-reso-steps"));
  EXPECT_TRUE(mentions(refusal({.resolution = 512, .shortest = 600}), "--min-bucket-reso"));
  EXPECT_TRUE(mentions(refusal({.resolution = 512, .longest = 400}), "--max-bucket-reso"));
}

TEST(ChooseBucket, TakesTheNearestShapeOfTheGroup) {
  const auto sizes = bucket_sizes({.resolution = 512});
  EXPECT_EQ(choose_bucket(sizes, {wide(300, 300)}), wide(512, 512));
  EXPECT_EQ(choose_bucket(sizes, {wide(3000, 2000)}), wide(640, 384));
  EXPECT_EQ(choose_bucket(sizes, {wide(2000, 3000)}), wide(384, 640));
  EXPECT_EQ(choose_bucket(sizes, {wide(9000, 1000)}), wide(1024, 256));
  // A pair between its two shapes; a list by its middle one.
  EXPECT_EQ(choose_bucket(sizes, {wide(1000, 250), wide(250, 1000)}), wide(512, 512));
  EXPECT_EQ(choose_bucket(sizes, {wide(400, 400), wide(3000, 2000), wide(2000, 500)}), wide(640, 384));
  // 768 x 384 and 512 x 256 have one shape.
  EXPECT_EQ(choose_bucket({wide(512, 256), wide(768, 384), wide(512, 512)}, {wide(2000, 1000)}), wide(768, 384));
}

TEST(PlaceImage, CoversTheTargetWithOneSideExact) {
  const at::Tensor image = at::zeros({100, 150, 3}, at::kByte);
  const TransformDecision centred;
  const auto tall = place_image(image, {96, 64}, centred);
  EXPECT_EQ(tall.pixels.sizes(), (at::IntArrayRef{96, 64, 3}));
  EXPECT_EQ(tall.geometry.crop_top, 0);
  EXPECT_EQ(tall.geometry.crop_left, 40);  // 96 x 144, 80 too wide
  EXPECT_EQ(tall.geometry.target, (PictureSize{96, 64}));
  const auto wider = place_image(image, {40, 200}, centred);
  EXPECT_EQ(wider.geometry.crop_left, 0);
  EXPECT_EQ(wider.geometry.crop_top, 46);  // 133 x 200, 93 too high: 46.5 to even
}

TEST(TargetSize, IsTheSquareWithoutBuckets) {
  EXPECT_EQ(target_size({.resolution = 96}, {"no picture"}), (PictureSize{96, 96}));
  TransformOptions options{.resolution = 96};
  options.buckets = bucket_sizes({.resolution = 96, .step = 32});
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { target_size(options, {"rubbish"}); }), "no JPEG"));
}

}  // namespace
}  // namespace prefusion::data

#include "data/filters/picture_rules.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <bit>

#include "core/rng.h"
#include "images/image_decode.h"
#include "images/image_encode.h"
#include "images/pillow_resize.h"
#include "tests/data/filters/make_groups.h"

namespace prefusion::data::filters {
namespace {

using tests::GroupSetMaker;
using tests::kept_by;
using Indices = std::vector<int64_t>;

// Patches of random greys with a tint, 96x120 pixels: energy at all low frequencies, as pictures have.
at::Tensor patches(uint64_t seed) {
  const at::Tensor grey = philox_randn({8, 10}, {.seed = seed}, RandomPurpose::kOther) * 60 + 127;
  const at::Tensor plane = grey.repeat_interleave(12, 0).repeat_interleave(12, 1);
  return at::stack({plane, plane * 0.9, plane * 0.7}, 2).clamp(0, 255).to(at::kByte).contiguous();
}

TEST(PictureHash, StaysUnderCompressionAndResizing) {
  const at::Tensor image = patches(1);
  const uint64_t hash = picture_hash(image);
  EXPECT_LE(hamming_distance(hash, picture_hash(images::decode_image(images::encode_jpeg(image, {.quality = 70})))),
            10);
  EXPECT_LE(hamming_distance(hash, picture_hash(images::pillow_resize(image, 48, 60, images::ResizeFilter::kBicubic))),
            10);
  EXPECT_GE(hamming_distance(hash, picture_hash(patches(2))), 18);
  EXPECT_GE(hamming_distance(hash, picture_hash(image.flip(1).contiguous())), 18);
}

TEST(PictureHash, IsHalfBitsAndZeroForOneColour) {
  EXPECT_EQ(std::popcount(picture_hash(patches(1))), 32);
  EXPECT_EQ(picture_hash(at::full({40, 50, 3}, 200, at::kByte)), 0u);
}

TEST(HashIndex, FindsAllWithinTheDistance) {
  for (const int distance : {0, 1, 4, 15}) {
    HashIndex index(distance);
    uint64_t state = 1;
    std::vector<uint64_t> hashes;
    for (int i = 0; i < 300; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      uint64_t hash = i % 3 == 0 || hashes.empty() ? state : hashes.back();
      for (int bit = 0; bit < i % 7; ++bit) hash ^= uint64_t{1} << ((state >> (bit * 6)) & 63);
      hashes.push_back(hash);
      index.add(hash, i);
    }
    for (int i = 0; i < 300; ++i) {
      Indices expected;
      for (int j = 0; j < 300; ++j) {
        if (hamming_distance(hashes[i], hashes[j]) <= distance) expected.push_back(j);
      }
      EXPECT_EQ(index.find(hashes[i]), expected);
    }
  }
}

TEST(PictureRules, DropGroupsOfOnePictureTwice) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).looking({0b1111, 0b0111}).add("p", {1, 0}).looking({0b1111, 0b0001});
  EXPECT_EQ(kept_by(maker.set(), same_picture_rule(1)), (Indices{1}));
  EXPECT_EQ(kept_by(maker.set(), same_picture_rule(0)), (Indices{0, 1}));
  maker.set().groups[0].is_one_picture = true;
  EXPECT_EQ(kept_by(maker.set(), same_picture_rule(1)), (Indices{0, 1}));
}

TEST(PictureRules, DropRepeatedGroupsOrPictures) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).looking({1, 2});
  maker.add("p", {0, 1}).looking({2, 1});    // the same pictures
  maker.add("q", {1, 0}).looking({1, 2});    // under another prompt
  maker.add("p", {1, 0}).looking({2, 100});  // one of them
  maker.add("p", {1, 0}).looking({1000, 2000});
  EXPECT_EQ(kept_by(maker.set(), duplicate_rule(DuplicateKind::kGroup, 0)), (Indices{0, 2, 3, 4}));
  EXPECT_EQ(kept_by(maker.set(), duplicate_rule(DuplicateKind::kPicture, 0)), (Indices{0, 4}));
}

TEST(PictureRules, KnowSizesAndBrokenPictures) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).looking({1, 2}).add("p", {1, 0}).looking({1, 2});
  maker.set().pictures[1].height = 63;
  EXPECT_EQ(kept_by(maker.set(), min_size_rule(64)), (Indices{1}));
  maker.set().pictures[3].problem = "cut off";
  EXPECT_EQ(kept_by(maker.set(), readable_rule()), (Indices{0}));
}

}  // namespace
}  // namespace prefusion::data::filters

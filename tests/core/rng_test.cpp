#include "core/rng.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace prefusion {
namespace {

std::vector<uint32_t> words(const Uint4& block) {
  return {block.x, block.y, block.z, block.w};
}

constexpr DrawKey kKey{.seed = 5, .item = 17, .draw = 2};

TEST(Philox, GivesTheKnownAnswersOfItsPaper) {
  // Random123's kat_vectors, philox4x32 with 10 rounds.
  EXPECT_EQ(words(philox4x32(0, 0, 0)), (std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint64_t kOnes = ~uint64_t{0};
  EXPECT_EQ(words(philox4x32(kOnes, kOnes, kOnes)),
            (std::vector<uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(words(philox4x32(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88)),
            (std::vector<uint32_t>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformIsStrictlyBetweenZeroAndOne) {
  EXPECT_GT(uniform_open(0), 0.0f);
  EXPECT_LT(uniform_open(0xffffffff), 1.0f);
  EXPECT_NEAR(uniform_open(0x80000000), 0.5f, 1e-6f);
}

TEST(Philox, NormalsAreFiniteAtTheEdges) {
  for (uint64_t counter = 0; counter < 10000; ++counter) {
    const Normal4 normal = philox_normal4(1, 2, counter);
    ASSERT_TRUE(std::isfinite(normal.x) && std::isfinite(normal.y) && std::isfinite(normal.z) &&
                std::isfinite(normal.w));
  }
}

TEST(RandomStream, DiffersInEveryPartOfTheKey) {
  std::set<uint64_t> streams;
  for (uint64_t item = 0; item < 20; ++item) {
    for (uint64_t draw = 0; draw < 20; ++draw) {
      for (const auto purpose : {RandomPurpose::kNoise, RandomPurpose::kTimestep, RandomPurpose::kFlip}) {
        streams.insert(random_stream({.seed = 0, .item = item, .draw = draw}, purpose));
      }
    }
  }
  EXPECT_EQ(streams.size(), 1200u);
}

TEST(CounterRng, RepeatsFromItsKeyAndCopiesItsState) {
  CounterRng first(kKey, RandomPurpose::kOther);
  CounterRng second(kKey, RandomPurpose::kOther);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(first.bits(), second.bits());
  CounterRng copy = first;
  for (int i = 0; i < 7; ++i) EXPECT_EQ(first.bits(), copy.bits());
}

TEST(CounterRng, ReadsTheWordsOfItsStreamInOrder) {
  CounterRng rng(kKey, RandomPurpose::kOther);
  const uint64_t stream = random_stream(kKey, RandomPurpose::kOther);
  for (uint64_t counter = 0; counter < 3; ++counter) {
    for (const uint32_t word : words(philox4x32(kKey.seed, stream, counter))) EXPECT_EQ(rng.bits(), word);
  }
  // A number below a bound takes the first word as the high half.
  CounterRng other(kKey, RandomPurpose::kOther);
  const std::vector<uint32_t> block = words(philox4x32(kKey.seed, stream, 0));
  EXPECT_EQ(static_cast<uint64_t>(other.below(1000003)), ((uint64_t{block[0]} << 32) | block[1]) % 1000003);
}

TEST(CounterRng, BelowCoversItsRangeEvenly) {
  CounterRng rng(kKey, RandomPurpose::kTimestep);
  std::vector<int> counts(7);
  for (int i = 0; i < 7000; ++i) {
    const int64_t value = rng.below(7);
    ASSERT_TRUE(value >= 0 && value < 7);
    ++counts[static_cast<size_t>(value)];
  }
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);  // five standard deviations
  EXPECT_EQ(rng.below(1), 0);
  EXPECT_THROW(rng.below(0), Error);
}

TEST(CounterRng, UniformAndNormalHaveTheirMoments) {
  CounterRng rng(kKey, RandomPurpose::kOther);
  double sum = 0, normal_sum = 0, square_sum = 0;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const double uniform = rng.uniform();
    ASSERT_TRUE(uniform > 0 && uniform < 1);
    sum += uniform;
    const double normal = rng.normal();
    normal_sum += normal;
    square_sum += normal * normal;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.012);
  EXPECT_NEAR(normal_sum / kCount, 0, 0.04);
  EXPECT_NEAR(square_sum / kCount, 1, 0.06);
}

TEST(PhiloxRandn, ElementsDependOnTheirIndexAlone) {
  const at::Tensor small = philox_randn({5}, kKey, RandomPurpose::kNoise);
  const at::Tensor large = philox_randn({3, 4, 5}, kKey, RandomPurpose::kNoise);
  EXPECT_TRUE(at::equal(large.flatten().slice(0, 0, 5), small));
  const Normal4 block = philox_normal4(kKey.seed, random_stream(kKey, RandomPurpose::kNoise), 1);
  EXPECT_EQ(large.flatten()[6].item<float>(), block.z);
  EXPECT_EQ(philox_randn({0, 3}, kKey, RandomPurpose::kNoise).numel(), 0);
}

TEST(RandomPermutation, IsAPermutationThatDependsOnTheKey) {
  const std::vector<int64_t> order = random_permutation(100, kKey, RandomPurpose::kShuffle);
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(sorted[static_cast<size_t>(i)], i);
  EXPECT_EQ(order, random_permutation(100, kKey, RandomPurpose::kShuffle));
  DrawKey next = kKey;
  next.draw = 3;
  EXPECT_NE(order, random_permutation(100, next, RandomPurpose::kShuffle));
  EXPECT_TRUE(random_permutation(0, kKey, RandomPurpose::kShuffle).empty());
  EXPECT_EQ(random_permutation(1, kKey, RandomPurpose::kShuffle), std::vector<int64_t>{0});
}

}  // namespace
}  // namespace prefusion

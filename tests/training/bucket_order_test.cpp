#include "training/bucket_order.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/rng.h"

namespace prefusion::training {
namespace {

using images::PictureSize;

constexpr int64_t kGroups = 23;
constexpr int64_t kBatch = 4;

// One group in eleven is of a rare size, group 7 cannot be read.
std::optional<PictureSize> size_of(int64_t index) {
  if (index == 7) return std::nullopt;
  if (index % 11 == 3) return PictureSize{96, 32};
  return index % 3 == 0 ? PictureSize{64, 48} : PictureSize{48, 64};
}

std::vector<data::LoadRequest> passes(uint64_t count) {
  std::vector<data::LoadRequest> requests;
  for (uint64_t pass = 0; pass < count; ++pass) {
    for (const int64_t index : random_permutation(kGroups, DrawKey{3, 0, pass}, RandomPurpose::kShuffle)) {
      requests.push_back({index, pass});
    }
  }
  return requests;
}

std::vector<std::pair<int64_t, uint64_t>> pairs(const std::vector<data::LoadRequest>& requests) {
  std::vector<std::pair<int64_t, uint64_t>> pairs;
  for (const auto& request : requests) pairs.emplace_back(request.index, request.draw);
  return pairs;
}

TEST(BucketOrder, BatchesAreFullAndOfOneSize) {
  const auto batches = full_bucket_batches(passes(5), size_of, kBatch);
  EXPECT_GT(batches.size(), 20U);
  for (const auto& batch : batches) {
    ASSERT_EQ(std::ssize(batch), kBatch);
    for (const auto& request : batch) EXPECT_EQ(size_of(request.index), size_of(batch.front().index));
  }
}

TEST(BucketOrder, EveryDrawComesOnceSomeWaitForTheirBatch) {
  const auto used = pairs(joined(full_bucket_batches(passes(5), size_of, kBatch)));
  const std::set distinct(used.begin(), used.end());
  EXPECT_EQ(distinct.size(), used.size());
  const int64_t waiting = 5 * (kGroups - 1) - std::ssize(used);
  data::TransformOptions transform;
  transform.buckets = {{96, 32}, {64, 48}, {48, 64}};
  EXPECT_LE(waiting, num_waiting_at_most(transform, kBatch));
  std::map<int64_t, int> times;
  for (const auto& [index, draw] : used) ++times[index];
  EXPECT_EQ(std::ssize(times), kGroups - 1);
  EXPECT_GE(times.at(3), 3);  // of the rare size
}

TEST(BucketOrder, DoesNotDependOnWhatFollows) {
  const auto longer = pairs(joined(full_bucket_batches(passes(6), size_of, kBatch)));
  const auto shorter = pairs(joined(full_bucket_batches(passes(4), size_of, kBatch)));
  ASSERT_LT(shorter.size(), longer.size());
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

TEST(BucketOrder, PassesThatSeeEveryGroupEndWithSmallerBatches) {
  const auto batches = all_bucket_batches(passes(1), size_of, kBatch);
  EXPECT_EQ(std::ssize(joined(batches)), kGroups - 1);
  int64_t smaller = 0;
  for (const auto& batch : batches) {
    smaller += std::ssize(batch) < kBatch ? 1 : 0;
    for (const auto& request : batch) EXPECT_EQ(size_of(request.index), size_of(batch.front().index));
  }
  EXPECT_GT(smaller, 0);
  EXPECT_LE(smaller, 3);
}

TEST(BucketOrder, OfOneSizeIsTheOrderOfTheRequests) {
  const auto requests = passes(1);
  const auto one_size = [](int64_t) { return std::optional(PictureSize{64, 64}); };
  EXPECT_EQ(pairs(joined(all_bucket_batches(requests, one_size, kBatch))), pairs(requests));
}

}  // namespace
}  // namespace prefusion::training

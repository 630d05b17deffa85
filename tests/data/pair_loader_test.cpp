#include "data/pair_loader.h"

#include <gtest/gtest.h>

#include <atomic>

#include "core/logging.h"
#include "images/image_encode.h"
#include "tests/core/expect_error.h"
#include "tests/support/tensor_near.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::mentions;

// Pairs of flat pictures whose grey value says which group they are; some cannot be read.
class FlatPairs : public PreferenceDataset {
 public:
  explicit FlatPairs(int64_t size) : size_(size) { summary_.group_size = 2; }

  int64_t size() const override { return size_; }
  int64_t group_size() const override { return 2; }
  const DatasetSummary& summary() const override { return summary_; }
  const std::string& prompt(int64_t) const override { return prompt_; }
  std::string id(int64_t index) const override { return concat("row ", index); }
  std::vector<double> labels(int64_t) const override { return {1, 0}; }
  std::vector<double> scores(int64_t) const override { return {}; }
  std::vector<int64_t> epoch_order(uint64_t seed, uint64_t epoch) const override {
    return random_permutation(size_, DrawKey{.seed = seed, .draw = epoch}, RandomPurpose::kShuffle);
  }
  PreferenceRecord read(int64_t index) const override {
    ++num_reads;
    if (index == failing_with_run_error) fail_run("the disk is on fire");
    PreferenceRecord record{.id = id(index), .index = index, .prompt = prompt_};
    for (int item = 0; item < 2; ++item) {
      const at::Tensor image = at::full({6, 8, 3}, (2 * index + item) % 256, at::kByte);
      const bool is_broken = bad_every > 0 && index % bad_every == 3;
      record.items.push_back(
          PreferenceItem{.encoded = is_broken ? "rubbish" : images::encode_png(image), .label = 1.0 - item});
    }
    return record;
  }

  int64_t bad_every = 0;
  int64_t failing_with_run_error = -1;
  mutable std::atomic<int64_t> num_reads = 0;

 private:
  int64_t size_;
  std::string prompt_ = "a prompt";
  DatasetSummary summary_;
};

LoaderOptions options(int num_threads, int64_t batch_size = 4) {
  return LoaderOptions{.batch_size = batch_size,
                       .num_threads = num_threads,
                       .seed = 9,
                       .transform = {.resolution = 4, .random_crop = true}};
}

std::vector<GroupBatch> load_all(const PreferenceDataset& dataset, std::vector<LoadRequest> requests,
                                 const LoaderOptions& options) {
  PairLoader loader(dataset, std::move(requests), options);
  std::vector<GroupBatch> batches;
  while (auto batch = loader.next()) batches.push_back(std::move(*batch));
  return batches;
}

TEST(PairLoader, GivesTheRequestsInOrderWhateverTheThreads) {
  const FlatPairs dataset(30);
  const auto requests = epoch_requests(dataset, 5, 1);
  const auto expected = load_all(dataset, requests, options(1));
  ASSERT_EQ(expected.size(), 8u);
  EXPECT_EQ(expected.back().size(), 2);
  size_t position = 0;
  for (const GroupBatch& batch : expected) {
    for (const LoadedGroup& group : batch.groups) EXPECT_EQ(group.index, requests[position++].index);
    EXPECT_EQ(batch.next_position, static_cast<int64_t>(position));
  }
  for (const int num_threads : {2, 7}) {
    const auto found = load_all(dataset, requests, options(num_threads));
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].ids(), expected[i].ids());
      EXPECT_TRUE(at::equal(found[i].pixel_values, expected[i].pixel_values));
    }
  }
}

TEST(PairLoader, GivesPixelsLabelsAndHashesOfEachGroup) {
  const FlatPairs dataset(5);
  const auto batches = load_all(dataset, {{.index = 4}, {.index = 2, .draw = 6}}, options(2));
  ASSERT_EQ(batches.size(), 1u);
  const GroupBatch& batch = batches[0];
  EXPECT_EQ(batch.pixel_values.sizes(), (at::IntArrayRef{2, 2, 3, 4, 4}));
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t item = 0; item < 2; ++item) {
      const double grey = static_cast<double>(2 * (b == 0 ? 4 : 2) + item);
      const at::Tensor expected = at::full({3, 4, 4}, (grey / 255 - 0.5) / 0.5);
      EXPECT_TRUE(tests::near(batch.pixel_values[b][item], expected, 1e-6));
    }
  }
  EXPECT_TRUE(at::equal(batch.labels, at::tensor({1.0, 0.0, 1.0, 0.0}, at::kDouble).view({2, 2})));
  EXPECT_EQ(batch.prompts(), (std::vector<std::string>{"a prompt", "a prompt"}));
  EXPECT_EQ(batch.groups[1].draw, 6u);
  EXPECT_EQ(batch.groups[0].geometry[1].original_width, 8);
  EXPECT_EQ(batch.groups[0].image_hashes[0], hash_content(dataset.read(4).items[0].encoded));
}

TEST(PairLoader, GoesOnAnywhereAsIfItHadNeverStopped) {
  FlatPairs dataset(40);
  dataset.bad_every = 10;
  LoaderOptions wanted = options(3);
  wanted.max_bad = {.count = 10};
  const auto whole = load_all(dataset, epoch_requests(dataset, 5, 2), wanted);
  for (size_t stop = 0; stop + 1 < whole.size(); ++stop) {
    const auto rest = load_all(dataset, epoch_requests(dataset, 5, 2, whole[stop].next_position), wanted);
    ASSERT_EQ(rest.size(), whole.size() - stop - 1);
    for (size_t i = 0; i < rest.size(); ++i) {
      EXPECT_EQ(rest[i].ids(), whole[stop + 1 + i].ids());
      EXPECT_TRUE(at::equal(rest[i].pixel_values, whole[stop + 1 + i].pixel_values));
    }
  }
}

TEST(PairLoader, SkipsAndCountsBrokenRowsUpToTheLimit) {
  set_log_level(LogLevel::kOff);
  FlatPairs dataset(40);
  dataset.bad_every = 10;  // 3, 13, 23, 33
  LoaderOptions wanted = options(2);
  wanted.max_bad = {.count = 4, .fraction = 0};
  PairLoader loader(dataset, epoch_requests(dataset, 1, 0), wanted);
  int64_t groups = 0;
  while (const auto batch = loader.next()) {
    for (const LoadedGroup& group : batch->groups) EXPECT_NE(group.index % 10, 3);
    groups += batch->size();
  }
  EXPECT_EQ(groups, 36);
  EXPECT_EQ(loader.num_bad(), 4);

  wanted.max_bad = {.count = 3, .fraction = 0};
  const auto message =
      error_message(ErrorClass::kInput, [&] { load_all(dataset, epoch_requests(dataset, 1, 0), wanted); });
  EXPECT_TRUE(mentions(message, "4 of 40"));
  EXPECT_TRUE(mentions(message, "3, image 0"));
  wanted.max_bad = {.count = 4, .fraction = 0};
  wanted.num_bad = 1;  // one was met before a restart
  error_message(ErrorClass::kInput, [&] { load_all(dataset, epoch_requests(dataset, 1, 0), wanted); });
  set_log_level(LogLevel::kInfo);
}

TEST(PairLoader, PassesOtherErrorsOn) {
  FlatPairs dataset(40);
  dataset.failing_with_run_error = 17;
  error_message(ErrorClass::kRun, [&] { load_all(dataset, epoch_requests(dataset, 1, 0), options(3)); });
}

TEST(PairLoader, StopsReadingWhenItIsDropped) {
  const FlatPairs dataset(1000);
  {
    PairLoader loader(dataset, epoch_requests(dataset, 1, 0), options(2));
    loader.next();
  }
  EXPECT_LE(dataset.num_reads, 4 + 16 + 2);
}

TEST(PairLoader, DecodesOnlyWhatIsWanted) {
  const FlatPairs dataset(8);
  LoaderOptions wanted = options(2);
  wanted.wants_pixels = [](const LoadedGroup& group) { return group.index != 2; };
  const auto batches = load_all(dataset, {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}, wanted);
  EXPECT_FALSE(batches[0].pixel_values.defined());
  EXPECT_FALSE(batches[0].groups[2].pixel_values.defined());
  EXPECT_TRUE(batches[0].groups[1].pixel_values.defined());
  EXPECT_TRUE(batches[1].pixel_values.defined());
}

TEST(PairLoader, LeavesOutAPartialBatchWhenAsked) {
  const FlatPairs dataset(10);
  LoaderOptions wanted = options(2);
  wanted.drop_last = true;
  EXPECT_EQ(load_all(dataset, epoch_requests(dataset, 1, 0), wanted).size(), 2u);
}

}  // namespace
}  // namespace prefusion::data

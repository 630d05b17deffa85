#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tools/synthesis_journal.h"
#include "tools/synthesis_plan.h"

namespace prefusion::tools {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

TEST(PruneRule, IsAStepAndAShare) {
  EXPECT_EQ(parse_prune_rule("8").call, 8u);
  EXPECT_EQ(parse_prune_rule("8").share, 0.5);
  EXPECT_EQ(parse_prune_rule("12:0.25").share, 0.25);
  for (const char* text : {"", "0", "-1", "8:", "8:0", "8:1", "x:0.5", "8:0.5:2"}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { parse_prune_rule(text); }), text));
  }
}

TEST(Shard, IsOneOfSeveralParts) {
  EXPECT_EQ(parse_shard("2/3").index, 2u);
  EXPECT_EQ(parse_shard("2/3").count, 3u);
  for (const char* text : {"3/3", "1", "/2", "0/0", "a/2"}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { parse_shard(text); }), text));
  }
}

TEST(PictureSeed, DependsOnPromptModelAndNumberAlone) {
  SynthesizeOptions options{.seed = 3};
  SynthesisPlan plan{.prompts = {{.prompt = "a"}, {.prompt = "b"}, {.prompt = "c", .seed = 40}}};
  const uint64_t seed = picture_seed(options, plan, 1, 1, 2);
  EXPECT_LT(seed, uint64_t{1} << 32);
  EXPECT_NE(seed, picture_seed(options, plan, 0, 1, 2));
  EXPECT_NE(seed, picture_seed(options, plan, 1, 0, 2));
  EXPECT_NE(seed, picture_seed(options, plan, 1, 1, 1));
  EXPECT_EQ(picture_seed(options, plan, 2, 5, 2), 42u);
  // The same prompt in a shard.
  const SynthesisPlan shard{.prompts = {plan.prompts[1]}, .first_prompt = 1};
  EXPECT_EQ(picture_seed(options, shard, 0, 1, 2), seed);
}

TEST(GroupRanking, KeepsTheBestInTheOrderTheyCame) {
  const at::Tensor scores = at::tensor({0.1, 0.9, 0.5, 0.9, 0.2}, at::kDouble).unsqueeze(1);
  for (const char* name : {"wins", "mean", "zscore", "worst", "worst-rank"}) {
    const GroupRanking ranking{.kind = &reward_models::aggregate_kind(name), .weights = {}, .statistics = {}};
    EXPECT_EQ(ranking.best(scores, 3), (std::vector<size_t>{1, 2, 3})) << name;
    EXPECT_EQ(ranking.best(scores, 1), (std::vector<size_t>{1})) << name;
    EXPECT_EQ(ranking.best(scores, 9).size(), 5u) << name;
  }
}

TEST(SampledFilesKey, SeesWeightsNamesAndPlacesChange) {
  const TempDir folder;
  const auto file = folder / "weights.bin";
  std::string weights(300'000, 'a');
  write_file(file, weights);
  const std::string key = sampled_files_key(folder.path());
  EXPECT_EQ(sampled_files_key(folder.path()), key);
  weights[0] = 'b';
  write_file(file, weights);
  EXPECT_NE(sampled_files_key(folder.path()), key);
  write_file(file, std::string(300'001, 'a'));
  EXPECT_NE(sampled_files_key(folder.path()), key);
  write_file(file, std::string(300'000, 'a'));
  EXPECT_EQ(sampled_files_key(folder.path()), key);
  std::filesystem::rename(file, folder / "other.bin");
  EXPECT_NE(sampled_files_key(folder.path()), key);
}

class Journal : public testing::Test {
 protected:
  static SynthesisJournal::Block block(size_t prompt) {
    SynthesisJournal::Block block;
    for (size_t k = 0; k < 2; ++k) {
      block.prompts.push_back(prompt);
      block.seeds.push_back(100 * prompt + k);
      block.candidates.push_back(
          {.request = k, .encoded = concat("picture ", prompt, " ", k), .scores = {0.1, 1e-300}});
    }
    block.counts.evaluations = 5;
    return block;
  }
  SynthesisJournal open(bool resumes, int seed = 1) const {
    return SynthesisJournal(folder_ / "journal", {{"seed", seed}}, 2, resumes);
  }
  static void expect_blocks(const SynthesisJournal& journal, size_t count) {
    ASSERT_EQ(journal.num_blocks(1), count);
    ASSERT_EQ(journal.pictures(1).size(), 2 * count);
    for (size_t i = 0; i < 2 * count; ++i) {
      const JournalPicture& picture = journal.pictures(1)[i];
      EXPECT_EQ(picture.prompt, i / 2);
      EXPECT_EQ(picture.seed, 100 * (i / 2) + i % 2);
      EXPECT_EQ(picture.scores, (std::vector<double>{0.1, 1e-300}));
      EXPECT_EQ(journal.read(1, picture), concat("picture ", i / 2, " ", i % 2));
    }
    EXPECT_EQ(journal.counts().evaluations, static_cast<int64_t>(5 * count));
  }
  std::filesystem::path blocks_file() const { return folder_ / "journal" / "model-001.blocks"; }

  TempDir folder_;
};

TEST_F(Journal, HoldsItsBlocksWhenOpenedAgain) {
  {
    SynthesisJournal journal = open(false);
    for (size_t prompt = 0; prompt < 3; ++prompt) journal.add(1, block(prompt));
    expect_blocks(journal, 3);
    EXPECT_EQ(journal.num_blocks(0), 0u);
  }
  expect_blocks(open(true), 3);
}

TEST_F(Journal, CutsOffWhatIsNotWhole) {
  {
    SynthesisJournal journal = open(false);
    for (size_t prompt = 0; prompt < 2; ++prompt) journal.add(1, block(prompt));
  }
  const std::string whole = read_file(blocks_file());
  for (const size_t cut : {size_t{1}, size_t{20}, whole.size() / 2 - 1}) {
    write_file(blocks_file(), whole.substr(0, whole.size() - cut));
    SynthesisJournal journal = open(true);
    expect_blocks(journal, 1);
    journal.add(1, block(1));
    expect_blocks(journal, 2);
  }
  std::string damaged = whole;
  damaged.back() ^= 1;
  write_file(blocks_file(), damaged);
  expect_blocks(open(true), 1);
  write_file(blocks_file(), whole + std::string(500, '\xff'));
  expect_blocks(open(true), 2);
}

TEST_F(Journal, GoesOnOnlyWhenAskedAndWithTheSameSettings) {
  {
    SynthesisJournal journal = open(false);
    journal.add(1, block(0));
  }
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { open(false); }), "--resume"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { open(true, 2); }), "its seed was 1, this run's is 2"));
  expect_blocks(open(true), 1);
}

TEST_F(Journal, WithoutBlocksLeavesNothing) {
  { SynthesisJournal journal = open(false); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(Journal, IsOpenOnce) {
  SynthesisJournal journal = open(false);
  EXPECT_TRUE(mentions(error_message(ErrorClass::kRun, [&] { open(true); }), "in use"));
}

}  // namespace
}  // namespace prefusion::tools

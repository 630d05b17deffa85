#include <gtest/gtest.h>

#include "data/dataset.h"
#include "data/parquet_writer.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;

using Values = std::vector<double>;

void expect_values(const Values& found, const Values& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-6) << i;
}

const std::string kPair = R"("prompt": "p", "images": ["a.png", "b.png"])";

TEST(Scores, OrderPairsThatNobodyLabelled) {
  const ManifestFile file({"{" + kPair + R"(, "scores": [0.1, 0.9]})", "{" + kPair + R"(, "scores": [5, -3]})"});
  const auto dataset = open_preference_data({file.path()});
  EXPECT_EQ(dataset->summary().score_name, "score");
  expect_values(dataset->scores(0), {0.9, 0.1});
  expect_values(dataset->scores(1), {5, -3});
  expect_values(dataset->labels(0), {1, 0});
}

TEST(Scores, OrderNothingBesideAHumanLabel) {
  const ManifestFile file({"{" + kPair + R"(, "scores": [0.1, 0.9], "label": 0.75})"});
  const auto dataset = open_preference_data({file.path()});
  expect_values(dataset->scores(0), {0.1, 0.9});
  expect_values(dataset->labels(0), {0.75, 0.25});
}

TEST(Scores, AreReadByNameFromMapsAndLists) {
  const ManifestFile file({"{" + kPair + R"(, "scores": [{"clip": 1, "taste": 4}, {"clip": 2, "taste": 3}]})",
                           "{" + kPair + R"(, "scores": {"clip": [6, 5], "taste": [7, 8]}})"});
  const auto clip = open_preference_data({file.path()}, {.score_name = "clip"});
  expect_values(clip->scores(0), {2, 1});
  expect_values(clip->scores(1), {6, 5});
  const auto taste = open_preference_data({file.path()}, {.score_name = "taste"});
  expect_values(taste->scores(0), {4, 3});
  expect_values(taste->scores(1), {8, 7});
}

TEST(Scores, CalledPhiAreTheLabels) {
  const ManifestFile file({R"({"prompt": "p", "images": ["a", "b", "c"], )"
                           R"("scores": {"clip": [3, 2, 1], "taste": [1, 3, 2], "phi": [0.7, 0.6, 0.1]}})"});
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kList});
  expect_values(dataset->labels(0), {0.7, 0.6, 0.1});
  const auto clip = open_preference_data({file.path()}, {.group = GroupKind::kList, .score_name = "clip"});
  expect_values(clip->labels(0), {3, 2, 1});
}

TEST(Scores, OfSeveralNamesGiveTheShareOfWinsUnlessOneIsChosen) {
  const ManifestFile file({R"({"prompt": "p", "images": ["a", "b", "c"], )"
                           R"("scores": {"clip": [3, 2, 1], "taste": [1, 3, 2]}})"});
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kList});
  EXPECT_EQ(dataset->summary().score_name, "");
  EXPECT_TRUE(dataset->scores(0).empty());
  expect_values(dataset->labels(0), {0.75, 0.5, 0.25});  // b wins one of two by clip, both by taste
  EXPECT_TRUE(mentions(dataset->summary().text(), "clip, taste"));
  EXPECT_TRUE(mentions(dataset->summary().text(), "--score-name"));
}

TEST(Scores, ThatAreEqualAreAWinForNeither) {
  const ManifestFile file({R"({"prompt": "p", "images": ["a", "b", "c"], )"
                           R"("scores": {"clip": [3, 3, 1], "taste": [2, 2, 2]}})"});
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kList});
  expect_values(dataset->labels(0), {0.25, 0.25, 0});
}

TEST(Scores, ThatContradictTheRanksGiveWayToThem) {
  const std::string scores = R"(, "scores": {"clip": [9, 5, 1], "taste": [9, 5, 1]}})";
  const std::string images = R"({"prompt": "p", "images": ["a", "b", "c"], )";
  const ManifestFile file({images + R"("ranks": [2, 1, 3])" + scores, images + R"("ranks": [1, 2, 3])" + scores});
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kList});
  expect_values(dataset->labels(0), {1, 0.5, 0});
  expect_values(dataset->labels(1), {1, 0.5, 0});
}

TEST(Scores, ThatSomeRowsLackAreTakenByNameOnly) {
  const ManifestFile file({"{" + kPair + R"(, "label": 1, "scores": [1, 2]})", "{" + kPair + R"(, "label": 1})",
                           "{" + kPair + R"(, "label": 1, "scores": [3, null]})"});
  const auto all = open_preference_data({file.path()});
  EXPECT_EQ(all->size(), 3);
  EXPECT_TRUE(all->scores(0).empty());
  EXPECT_TRUE(mentions(all->summary().text(), "1 of the used rows have the score score"));
  const auto scored = open_preference_data({file.path()}, {.score_name = "score"});
  ASSERT_EQ(scored->size(), 1);
  EXPECT_EQ(scored->summary().missing_scores, 2);
  EXPECT_EQ(scored->summary().dropped(), 2);
  expect_values(scored->scores(0), {1, 2});
}

TEST(Scores, ThatNoRowHasAreAnError) {
  const ManifestFile file({"{" + kPair + R"(, "scores": {"clip": [1, 2]}})"});
  const std::string message =
      error_message(ErrorClass::kInput, [&] { open_preference_data({file.path()}, {.score_name = "taste"}); });
  EXPECT_TRUE(mentions(message, "without the score 'taste'"));
  EXPECT_TRUE(mentions(message, "clip"));
}

TEST(Scores, ThatAreNoListOfFiniteNumbersAreMalformed) {
  for (const std::string scores :
       {"[1]", "[1, 2, 3]", R"([1, "x"])", "[1, 1e999]", R"({"clip": [1]})", "3", R"([{"clip": [1]}, {"clip": 2}])"}) {
    const ManifestFile file({"{" + kPair + R"(, "label": 1})", "{" + kPair + R"(, "scores": )" + scores + "}"});
    const auto dataset = open_preference_data({file.path()}, {.max_bad = {.count = 1}});
    EXPECT_EQ(dataset->summary().malformed, 1) << scores;
    const std::string message = error_message(
        ErrorClass::kInput, [&] { open_preference_data({file.path()}, {.max_bad = {.count = 0, .fraction = 0}}); });
    EXPECT_TRUE(mentions(message, "rows.jsonl line 2: "));
  }
}

TEST(Scores, StandInForTheLabelsOfSinglePictures) {
  const ManifestFile file(
      {R"({"prompt": "p", "image": "a", "score": 0.5})", R"({"prompt": "p", "image": "b", "score": 7, "label": 0})"});
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kUnpaired});
  ASSERT_EQ(dataset->size(), 2);  // a score of one half is no tie
  expect_values(dataset->labels(0), {0.5});
  expect_values(dataset->labels(1), {0});
  expect_values(dataset->scores(1), {7});
}

TEST(Scores, OfRankedListsFollowTheItems) {
  const tests::TempDir folder;
  RankedListWriter writer(folder / "lists.parquet");
  for (int row = 0; row < 3; ++row) {
    RankedRow list{.prompt = "p"};
    for (int item = 0; item < 3 + row; ++item) {
      list.images.push_back({.image = "x", .scores = {{"clip", item + 0.5}}, .rank = static_cast<double>(item)});
    }
    writer.add(list);
  }
  writer.finish();
  const auto lists = open_preference_data({folder / "lists.parquet"}, {.group = GroupKind::kList});
  EXPECT_EQ(lists->summary().score_name, "clip");
  expect_values(lists->scores(0), {0.5, 1.5, 2.5});
  expect_values(lists->scores(2), {0.5, 2.5, 4.5});  // five items thinned to three
  const auto named =
      open_preference_data({folder / "lists.parquet"}, {.group = GroupKind::kList, .score_name = "clip"});
  expect_values(named->scores(0), {2.5, 1.5, 0.5});
  const auto pairs = open_preference_data({folder / "lists.parquet"});
  expect_values(pairs->scores(1), {0.5, 3.5});
  EXPECT_EQ(pairs->read(1).items[1].score, 3.5);
}

TEST(Scores, OfASubsetAreThoseOfItsGroups) {
  const ManifestFile file({"{" + kPair + R"(, "scores": [2, 1]})", "{" + kPair + R"(, "scores": [4, 3]})"});
  const auto part = subset(open_preference_data({file.path()}), {1});
  expect_values(part->scores(0), {4, 3});
}

}  // namespace
}  // namespace prefusion::data

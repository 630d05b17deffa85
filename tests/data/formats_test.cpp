#include <gtest/gtest.h>

#include "data/dataset.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;
using Values = std::vector<double>;

std::string problem_of(const std::string& row) {
  const ManifestFile file({row});
  return error_message(ErrorClass::kInput, [&] { open_preference_data({file.path()}, {.group = GroupKind::kList}); });
}

const std::string kImages = R"({"prompt": "p", "image_path": ["a.png", "b.png", "c.png"], )";

TEST(Hpd, AnnotationsAreAListForEachUserWhereUsersAreWanted) {
  const ManifestFile file({kImages +
                           R"("rank": [2, 1, 3], "raw_annotations": [)"
                           R"({"rank": [1, 2, 3], "user_hash": "ann"}, {"rank": [3, 1, 2], "user_hash": 7}]})"});
  const auto averaged = open_preference_data({file.path()}, {.group = GroupKind::kList});
  ASSERT_EQ(averaged->size(), 1);
  EXPECT_EQ(averaged->labels(0), (Values{1, 0.5, 0}));
  const auto by_user = open_preference_data({file.path()}, {.group = GroupKind::kList, .users = true});
  ASSERT_EQ(by_user->size(), 2);
  EXPECT_EQ(by_user->user(0), "ann");
  EXPECT_EQ(by_user->user(1), "7");
  const auto best = open_preference_data({file.path()}, {.users = true});  // best against worst
  EXPECT_EQ(best->labels(0), (Values{1, 0}));
}

TEST(Hpd, BrokenAnnotationsAreNamed) {
  EXPECT_TRUE(mentions(problem_of(kImages + R"("rank": [1, 2, 3], "raw_annotations": 3})"), "raw_annotations"));
  EXPECT_TRUE(mentions(problem_of(kImages + R"("rank": [1, 2, 3], "raw_annotations": [{"rank": [1, 2, 3]}]})"),
                       "user_hash and rank"));
  EXPECT_TRUE(
      mentions(problem_of(kImages + R"("rank": [1, 2, 3], "raw_annotations": [{"rank": [1, 2], "user_hash": "a"}]})"),
               "list of 3"));
}

TEST(Hpd, PreferencesAreReadUnderBothNames) {
  const std::string images = R"({"prompt": "p", "file_path": ["a.png", "b.png"], )";
  const ManifestFile file({images + R"("human_preference": [0, 1]})", images + R"("pap_pref": [0.25, 0.75]})"});
  const auto dataset = open_preference_data({file.path()});
  EXPECT_EQ(dataset->labels(0), (Values{1, 0}));
  EXPECT_EQ(dataset->labels(1), (Values{0.75, 0.25}));
}

TEST(ImageReward, GenerationsAreRanked) {
  const ManifestFile file({R"([{"id": "0", "prompt": "p", "generations": ["a", "b", "c"], "ranking": [2, 1, 2]}])"},
                          "test.json");
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kList});
  EXPECT_EQ(dataset->labels(0), (Values{1, 0.25, 0.25}));
  EXPECT_TRUE(mentions(problem_of(R"({"prompt": "p", "generations": ["a", "b"], "ranking": [1]})"), "list of 2"));
}

TEST(ImageReward, RowsOfAPromptAreAList) {
  const std::string row = R"({"prompt_id": "1", "prompt": "p", "image_path": )";
  const ManifestFile file({row + R"("a.webp", "rank": 2, "overall_rating": 3})",
                           row + R"("b.webp", "rank": 1, "overall_rating": 6})",
                           R"({"prompt_id": "2", "prompt": "q", "image_path": "c.webp", "rank": 1})",
                           row + R"("d.webp", "rank": 3, "overall_rating": 1})"});
  const auto dataset = open_preference_data({file.path()}, {.group = GroupKind::kList});
  ASSERT_EQ(dataset->size(), 1);  // a single picture is no list
  EXPECT_EQ(dataset->summary().short_lists, 1);
  EXPECT_EQ(dataset->labels(0), (Values{1, 0.5, 0}));
  EXPECT_EQ(dataset->scores(0), (Values{6, 3, 1}));
  EXPECT_TRUE(mentions(dataset->id(0), "prompt_id 1"));
}

TEST(ImageReward, RowsOfSeveralUsersAreAListEach) {
  const auto row = [](const char* user, const char* image, int rank) {
    return concat(R"({"prompt_id": "1", "prompt": "p", "user_id": ")", user, R"(", "image_path": ")", image,
                  R"(", "rank": )", rank, "}");
  };
  const ManifestFile file({row("u", "a", 1), row("v", "a", 2), row("u", "b", 2), row("v", "b", 1)});
  const auto dataset = open_preference_data({file.path()}, {.users = true});
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(dataset->user(0), "u");
  EXPECT_EQ(dataset->user(1), "v");
}

TEST(ImageReward, BrokenRowsAreSkippedUpToALimit) {
  const std::string good = R"({"prompt_id": "1", "prompt": "p", "image_path": )";
  const ManifestFile file({good + R"("a", "rank": 1})", good + R"("b", "rank": 2})", good + "3}", "{"});
  const auto dataset = open_preference_data({file.path()}, {.max_bad = {.count = 2}});
  EXPECT_EQ(dataset->size(), 1);
  EXPECT_EQ(dataset->summary().malformed, 2);
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { open_preference_data({file.path()}); }), "--max-bad"));
}

TEST(Ratings, OrderByTheirMeanOrByOneAspect) {
  const ManifestFile file({R"({"prompt": "p", "images": ["a", "b", "c"], )"
                           R"("ratings": {"taste": [5, 3, "1"], "truth": [1, {"Rating": "4"}, 4]}})"});
  const auto mean = open_preference_data({file.path()}, {.group = GroupKind::kList});
  EXPECT_EQ(mean->labels(0), (Values{3.5, 3, 2.5}));
  const auto taste = open_preference_data({file.path()}, {.group = GroupKind::kList, .score_name = "taste"});
  EXPECT_EQ(taste->labels(0), (Values{5, 3, 1}));
  EXPECT_EQ(taste->scores(0), (Values{5, 3, 1}));
}

TEST(Ratings, ThatAreNoneLeaveAnAspectOut) {
  const ManifestFile file(
      {R"({"prompt": "p", "images": ["a", "b"], "ratings": {"taste": [5, 3], "truth": ["N/A", 4]}})"});
  EXPECT_EQ(open_preference_data({file.path()})->summary().score_rows.count("truth"), 0u);
  EXPECT_TRUE(
      mentions(problem_of(R"({"prompt": "p", "images": ["a", "b", "c"], "ratings": {"taste": [5, 3]}})"), "list of 3"));
  EXPECT_TRUE(mentions(problem_of(R"({"prompt": "p", "images": ["a", "b"], "ratings": 3})"), "scores"));
}

TEST(Manifest, ModelsAndSeedsAreThoseOfThePictures) {
  const ManifestFile file({R"({"prompt": "p", "images": ["a", "b"], "label": 0, "models": ["x", "y"], "seed": 5})"});
  write_file(file / "a", "A");
  write_file(file / "b", "B");
  const PreferenceRecord record = open_preference_data({file.path()})->read(0);
  EXPECT_EQ(record.items[0].model, "y");  // the chosen one is the second
  EXPECT_EQ(record.items[0].seed, 5);
  EXPECT_TRUE(mentions(problem_of(R"({"prompt": "p", "images": ["a", "b"], "label": 0, "models": ["x"]})"), "models"));
  EXPECT_TRUE(mentions(problem_of(R"({"prompt": "p", "images": ["a", "b"], "label": 0, "seeds": [1, "2"]})"), "seeds"));
}

TEST(Manifest, PicturesMayLieInTheFolderAbove) {
  const ManifestFile file({}, "rows.jsonl");
  std::filesystem::create_directory(file / "metadata");
  write_file(file / "a", "A");
  write_file(file / "b", "B");
  write_file(file / "metadata/rows.jsonl", R"({"prompt": "p", "images": ["a", "b"], "label": 1})");
  EXPECT_EQ(open_preference_data({file / "metadata/rows.jsonl"})->read(0).items[0].encoded, "A");
}

}  // namespace
}  // namespace prefusion::data

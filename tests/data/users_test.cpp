#include <gtest/gtest.h>

#include "data/dataset.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;

std::string row(const std::string& prompt, const std::string& more) {
  return R"({"prompt": ")" + prompt + R"(", "images": ["a.png", "b.png"], "label": 1)" + more + "}";
}

std::unique_ptr<PreferenceDataset> open_pairs(const ManifestFile& file, bool users = true) {
  for (const char* name : {"a.png", "b.png"}) write_file(file / name, name);
  return open_preference_data({file.path()}, {.users = users});
}

TEST(Users, AreNamedByTextOrWholeNumber) {
  const ManifestFile file({row("p", R"(, "user": "anna")"), row("q", R"(, "user": 17)"),
                           row("r", R"(, "user_id": "b")"), row("anna", R"(, "user": "anna")")});
  const auto dataset = open_pairs(file);
  ASSERT_EQ(dataset->size(), 4);
  EXPECT_EQ(dataset->user(0), "anna");
  EXPECT_EQ(dataset->user(1), "17");
  EXPECT_EQ(dataset->user(2), "b");
  EXPECT_EQ(dataset->read(3).user, "anna");
  EXPECT_EQ(dataset->summary().prompts, 4);
  EXPECT_EQ(dataset->prompt(3), "anna");
}

TEST(Users, RowsWithoutOneAreDroppedAndCounted) {
  const ManifestFile file(
      {row("p", R"(, "user": "anna")"), row("q", ""), row("r", R"(, "user": "")"), row("s", R"(, "user": null)")});
  const auto dataset = open_pairs(file);
  EXPECT_EQ(dataset->size(), 1);
  EXPECT_EQ(dataset->summary().missing_users, 3);
  EXPECT_TRUE(mentions(dataset->summary().text(), "3 without a user dropped"));
}

TEST(Users, AreNotAskedForByOthers) {
  const ManifestFile file({row("p", R"(, "user": "anna")"), row("q", "")});
  const auto dataset = open_pairs(file, /*users=*/false);
  EXPECT_EQ(dataset->size(), 2);
  EXPECT_EQ(dataset->user(0), "");
  EXPECT_EQ(dataset->read(0).user, "");
  EXPECT_EQ(dataset->summary().user_rows, 1);
}

TEST(Users, StayWithTheirGroupsInASubset) {
  const ManifestFile file({row("p", R"(, "user": "anna")"), row("q", R"(, "user": "bert")")});
  const std::shared_ptr<const PreferenceDataset> dataset = open_pairs(file);
  EXPECT_EQ(subset(dataset, {1})->user(0), "bert");
}

TEST(Users, ThatNobodyNamesAreAskedForByField) {
  const ManifestFile file({row("p", "")});
  const std::string message = error_message(ErrorClass::kInput, [&] { open_pairs(file); });
  EXPECT_TRUE(mentions(message, "'user_id'")) << message;
}

TEST(Users, OfAnotherTypeAreMalformed) {
  const ManifestFile file({row("p", R"(, "user": "anna")"), row("q", R"(, "user": [1])")});
  const std::string message = error_message(ErrorClass::kInput, [&] {
    open_preference_data({file.path()}, {.users = true, .max_bad = {.count = 0, .fraction = 0}});
  });
  EXPECT_TRUE(mentions(message, "line 2: the user must be text")) << message;
}

}  // namespace
}  // namespace prefusion::data

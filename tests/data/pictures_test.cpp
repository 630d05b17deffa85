// Folders of pictures with their prompts.
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/dataset.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::mentions;

const DatasetOptions kUnpaired{.group = GroupKind::kUnpaired};

TEST(PictureFolder, HasPromptsBesideItsPictures) {
  const tests::TempDir folder;
  for (const char* name : {"b.png", "a.jpg", "c.webp"}) write_file(folder / name, std::string("picture ") + name);
  write_file(folder / "a.txt", "a red circle\n");
  write_file(folder / "b.txt", "two dogs");
  const auto dataset = open_preference_data({folder.path()}, kUnpaired);
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(dataset->prompt(0), "a red circle");
  EXPECT_EQ(dataset->labels(0), std::vector<double>{1});
  EXPECT_EQ(dataset->read(1).items[0].encoded, "picture b.png");
  EXPECT_TRUE(mentions(dataset->id(0), "a.jpg"));
  EXPECT_EQ(dataset->summary().missing_prompts, 1);  // c.webp
  std::filesystem::remove(folder / "c.webp");        // no pairs are left to be seen
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { open_preference_data({folder.path()}); }), "unpaired"));
}

TEST(PictureFolder, WithoutPromptsIsNothingToLearnFrom) {
  const tests::TempDir folder;
  write_file(folder / "a.png", "picture");
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { open_preference_data({folder.path()}, kUnpaired); }),
                       "without a prompt"));
}

}  // namespace
}  // namespace prefusion::data

#include <gtest/gtest.h>

#include "data/pair_loader.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;

using Texts = std::vector<std::string>;

const DatasetOptions kItemPrompts{.item_prompts = true};

// Prompts of the items of a group whose pictures a.png and b.png are there.
Texts item_prompts(const PreferenceDataset& dataset, int64_t index) {
  Texts prompts;
  for (const auto& item : dataset.read(index).items) prompts.push_back(item.prompt.value_or("none"));
  return prompts;
}

std::unique_ptr<PreferenceDataset> open_rows(const ManifestFile& file, const DatasetOptions& options = kItemPrompts) {
  for (const char* name : {"a.png", "b.png"}) write_file(file / name, name);
  return open_preference_data({file.path()}, options);
}

TEST(ItemPrompts, StandInTheOrderOfTheItems) {
  const ManifestFile file(
      {R"({"prompt": "shared", "images": ["a.png", "b.png"], "prompts": ["of a", "of b"], "label": 0})",
       R"({"images": ["a.png", "b.png"], "prompts": ["of a", "of b"], "label": 0})"});
  const auto dataset = open_rows(file);
  EXPECT_EQ(item_prompts(*dataset, 0), (Texts{"of b", "of a"}));
  EXPECT_EQ(dataset->read(0).items[0].encoded, "b.png");
  EXPECT_EQ(dataset->prompt(0), "shared");
  EXPECT_EQ(dataset->prompt(1), "of b");  // without a shared prompt that of the best item
}

TEST(ItemPrompts, AreLeftAloneUnlessAskedFor) {
  const ManifestFile file(
      {R"({"prompt": "shared", "images": ["a.png", "b.png"], "prompts": ["of a", "of b"], "label": 1})"});
  const auto dataset = open_rows(file, {});
  EXPECT_EQ(dataset->prompt(0), "shared");
  EXPECT_EQ(dataset->read(0).items[0].prompt, std::nullopt);
  EXPECT_EQ(dataset->summary().item_prompt_rows, 1);
}

TEST(ItemPrompts, OfOnePictureMakeAPair) {
  const ManifestFile file({R"({"image": "a.png", "prompts": ["good", "bad"]})",
                           R"({"image": "a.png", "prompts": ["bad", "good"], "label": 0})",
                           R"({"image": "b.png", "prompts": ["x", "y"], "label": [0.75, 0.25], "prompt": "z"})"});
  const auto dataset = open_rows(file);
  ASSERT_EQ(dataset->size(), 3);
  EXPECT_EQ(item_prompts(*dataset, 0), (Texts{"good", "bad"}));
  EXPECT_EQ(item_prompts(*dataset, 1), (Texts{"good", "bad"}));
  EXPECT_EQ(dataset->prompt(1), "good");
  EXPECT_EQ(dataset->prompt(2), "z");
  const PreferenceRecord record = dataset->read(0);
  EXPECT_EQ(record.items[0].encoded, record.items[1].encoded);
  EXPECT_EQ(dataset->labels(0), (std::vector<double>{1, 0}));
  EXPECT_NEAR(dataset->labels(2)[0], 0.75, 1e-6);
}

TEST(ItemPrompts, OfOnePictureSayNothingAboutPictures) {
  const ManifestFile file({R"({"image": "a.png", "prompts": ["good", "bad"]})"});
  const std::string message = error_message(ErrorClass::kInput, [&] { open_rows(file, {}); });
  EXPECT_TRUE(mentions(message, "item prompts"));
}

TEST(ItemPrompts, ThatAreMissingAreNamed) {
  const ManifestFile without({R"({"prompt": "p", "images": ["a.png", "b.png"], "label": 1})"});
  const std::string message = error_message(ErrorClass::kInput, [&] { open_rows(without); });
  EXPECT_TRUE(mentions(message, "'prompts'"));
  EXPECT_TRUE(mentions(message, "'caption_0'"));
  const ManifestFile some({R"({"prompt": "p", "images": ["a.png", "b.png"], "label": 1})",
                           R"({"images": ["a.png", "b.png"], "prompts": ["x", "y"], "label": 1})"});
  const auto dataset = open_rows(some);
  EXPECT_EQ(dataset->size(), 1);
  EXPECT_EQ(dataset->summary().missing_prompts, 1);
}

TEST(ItemPrompts, OfAnotherNumberAreMalformed) {
  const std::string good = R"({"images": ["a.png", "b.png"], "prompts": ["x", "y"], "label": 1})";
  for (const std::string row : {R"({"images": ["a.png", "b.png"], "prompts": ["x"], "label": 1})",
                                R"({"images": ["a.png", "b.png"], "prompts": ["x", "y", "z"], "label": 1})",
                                R"({"images": ["a.png"], "prompts": ["x", "y"]})",
                                R"({"images": ["a.png", "b.png"], "prompts": ["x", 3], "label": 1})",
                                R"({"images": ["a.png", "b.png"], "prompts": {"a": "x"}, "label": 1})"}) {
    const ManifestFile file({good, row});
    const std::string message = error_message(
        ErrorClass::kInput, [&] { open_rows(file, {.item_prompts = true, .max_bad = {.count = 0, .fraction = 0}}); });
    EXPECT_TRUE(mentions(message, "rows.jsonl line 2: prompts must be")) << message;
  }
}

TEST(ItemPrompts, BecomeSingleItemsOfUnpairedData) {
  const ManifestFile file({R"({"image": "a.png", "prompts": ["good", "bad"]})"});
  const auto dataset = open_rows(file, {.group = GroupKind::kUnpaired, .item_prompts = true});
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(item_prompts(*dataset, 1), Texts{"bad"});
  EXPECT_EQ(dataset->prompt(1), "bad");
  EXPECT_EQ(dataset->labels(1), std::vector<double>{0});
}

TEST(ItemPrompts, AreLoaded) {
  const ManifestFile file({R"({"images": ["a.png", "b.png"], "prompts": ["of a", "of b"], "label": 0})"});
  const auto dataset = open_rows(file);
  const LoaderOptions no_pixels{.wants_pixels = [](const LoadedGroup&) { return false; }};
  EXPECT_EQ(load_group(*dataset, {}, no_pixels).item_prompts, (Texts{"of b", "of a"}));
  const auto shared = open_rows(file, {});
  EXPECT_TRUE(load_group(*shared, {}, no_pixels).item_prompts.empty());
}

}  // namespace
}  // namespace prefusion::data

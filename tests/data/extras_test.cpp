#include <gtest/gtest.h>

#include <set>

#include "core/safetensors.h"
#include "data/dataset.h"
#include "data/mask.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::mentions;

using Values = std::vector<double>;

// Files of make_data.py extras.
class ParquetExtras : public testing::Test {
 protected:
  static void SetUpTestSuite() { folder_ = tests::run_reference_script("make_data.py", {"extras"}); }
  static std::unique_ptr<PreferenceDataset> open(const std::string& name, const DatasetOptions& options = {}) {
    return open_preference_data({folder_ / (name + ".parquet")}, options);
  }
  static std::filesystem::path folder_;
};
std::filesystem::path ParquetExtras::folder_;

TEST_F(ParquetExtras, ScoresOfNoNameAreTakenWhereAllRowsHaveThem) {
  const auto without = open("extras");
  EXPECT_EQ(without->size(), 6);
  EXPECT_TRUE(without->scores(0).empty());
  EXPECT_TRUE(mentions(without->summary().text(), "only 5 of the used rows have the score score"));
  const auto scored = open("extras", {.score_name = "score"});
  ASSERT_EQ(scored->size(), 5);
  EXPECT_EQ(scored->summary().missing_scores, 1);
  EXPECT_EQ(scored->scores(0), (Values{0.25, -0.5}));
  EXPECT_EQ(scored->scores(1), (Values{0.5, 1.25}));  // label_0 = 0 whatever the scores say
  EXPECT_EQ(scored->labels(1), (Values{1, 0}));
}

TEST_F(ParquetExtras, NamedScoresAreColumnsOfThatName) {
  const auto dataset = open("extras", {.score_name = "clip"});
  ASSERT_EQ(dataset->size(), 6);
  EXPECT_EQ(dataset->scores(4), (Values{-4, 4}));
  EXPECT_EQ(preference_margin(*dataset, 4), -8);
  EXPECT_NEAR(dataset->labels(2)[0], 0.7, 1e-6);
  EXPECT_EQ(open("extras")->summary().other_scores, std::set<std::string>{"clip"});
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [] { open("extras", {.score_name = "taste"}); }),
                       "scores found: clip, score"));
}

TEST_F(ParquetExtras, WeightsAreOneWhereNull) {
  const auto dataset = open("extras");
  EXPECT_EQ(dataset->summary().weighted_rows, 5);
  EXPECT_EQ(dataset->read(1).weight, 0.25);
  EXPECT_EQ(dataset->read(3).weight, 1.0);
}

TEST_F(ParquetExtras, ItemPromptsAreTheirCaptions) {
  const auto dataset = open("extras", {.item_prompts = true});
  ASSERT_EQ(dataset->size(), 5);
  EXPECT_EQ(dataset->summary().missing_prompts, 1);
  const PreferenceRecord record = dataset->read(1);
  EXPECT_EQ(record.prompt, "prompt 1");
  EXPECT_EQ(record.items[0].prompt, "second 1");
  EXPECT_EQ(record.items[1].prompt, "first 1");
}

TEST_F(ParquetExtras, FilesWithoutASharedCaptionTakeTheChosenItems) {
  const auto dataset = open("no_shared_caption");
  ASSERT_EQ(dataset->size(), 5);
  EXPECT_EQ(dataset->prompt(0), "first 0");
  EXPECT_EQ(dataset->prompt(1), "second 1");
}

TEST_F(ParquetExtras, MasksAreReadWhenAskedFor) {
  const auto dataset = open("extras", {.masks = true});
  EXPECT_EQ(dataset->read(1).items[0].mask, "mask 1 of 1");
  EXPECT_EQ(dataset->read(1).items[1].mask, "mask 0 of 1");
  EXPECT_EQ(open("extras")->read(1).items[0].mask, std::nullopt);
  const auto shared = open("shared_mask", {.masks = true});
  EXPECT_EQ(shared->read(1).items[0].mask, "mask 0 of 1");
  EXPECT_EQ(shared->read(1).items[1].mask, "mask 0 of 1");
}

TEST_F(ParquetExtras, ListsCarryAWeightAndAMask) {
  const auto lists = open("weighted_list", {.group = GroupKind::kList, .masks = true});
  const PreferenceRecord record = lists->read(0);
  EXPECT_EQ(record.weight, 0.5);
  EXPECT_EQ(record.items[2].mask, "mask of all");
}

TEST_F(ParquetExtras, NumbersThatAreNoneAreMalformed) {
  for (const auto& [name, reason] :
       std::map<std::string, std::string>{{"nan_weight", "the weight must be finite and not negative, found nan"},
                                          {"negative_weight", "the weight must be finite and not negative, found -1"},
                                          {"infinite_score", "the score 'score' must be finite, found inf"}}) {
    EXPECT_EQ(open(name, {.max_bad = {.count = 1}})->summary().malformed, 1) << name;
    const std::string message =
        error_message(ErrorClass::kInput, [&, &file = name] { open(file, {.max_bad = {.count = 0, .fraction = 0}}); });
    EXPECT_TRUE(mentions(message, name + ".parquet row 1: " + reason));
  }
}

TEST_F(ParquetExtras, MasksArePlacedAndAveragedAsPillowAndNumpyDo) {
  const TensorMap cases = read_safetensors(folder_ / "masks.safetensors");
  const TransformOptions options{.resolution = 32, .hflip = false};
  for (const std::string name : {"0", "1", "2", "3"}) {
    const at::Tensor& size = cases.at(name + ".size");
    const at::Tensor picture = at::zeros({size[0].item<int64_t>(), size[1].item<int64_t>(), 3}, at::kByte);
    for (const char* kind : {".colour", ".grey"}) {
      const at::Tensor bytes = cases.at(name + kind).contiguous();
      const std::string encoded(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes());
      const at::Tensor placed =
          transform_mask(decode_mask(encoded, picture), options.square(), decide_transform(options, {.seed = 1}));
      EXPECT_TRUE(at::equal(placed, cases.at(name + ".placed"))) << name << kind;
      EXPECT_TRUE(tests::near(average_masks(placed, 8), cases.at(name + ".latent"), 1e-6)) << name << kind;
    }
  }
}

}  // namespace
}  // namespace prefusion::data

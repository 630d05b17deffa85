#include <gtest/gtest.h>

#include "data/dataset.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;

std::string row(const std::string& more) {
  return R"({"prompt": "p", "images": ["a.png", "b.png"], "label": 1)" + more + "}";
}

// Opens pairs whose pictures are there.
std::unique_ptr<PreferenceDataset> open_pairs(const ManifestFile& file, const DatasetOptions& options = {}) {
  for (const char* name : {"a.png", "b.png", "c.png"}) write_file(file / name, name);
  return open_preference_data({file.path()}, options);
}

TEST(Weights, AreOneWhereSomeRowsHaveNone) {
  const ManifestFile file({row(R"(, "weight": 0.25)"), row(""), row(R"(, "weight": 0)"), row(R"(, "weight": null)")});
  const auto dataset = open_pairs(file);
  EXPECT_EQ(dataset->summary().weighted_rows, 2);
  EXPECT_EQ(dataset->read(0).weight, 0.25);
  EXPECT_EQ(dataset->read(1).weight, 1.0);
  EXPECT_EQ(dataset->read(2).weight, 0.0);
  EXPECT_EQ(dataset->read(3).weight, 1.0);
}

TEST(Weights, AreAbsentWhereNoRowHasOne) {
  const ManifestFile file({row("")});
  EXPECT_EQ(open_pairs(file)->read(0).weight, std::nullopt);
}

TEST(Weights, AreThoseOfEveryPairOfAList) {
  const ManifestFile file(
      {R"({"prompt": "p", "images": ["a.png", "b.png", "c.png"], "ranks": [1, 2, 3], "weight": 2})"});
  const auto dataset = open_pairs(file, {.list_pairs = ListPairs::kAdjacent});
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(dataset->read(0).weight, 2.0);
  EXPECT_EQ(dataset->read(1).weight, 2.0);
}

TEST(Weights, ThatAreNoFiniteNumberFromZeroOnAreMalformed) {
  for (const std::string weight : {"-0.5", "1e300", R"("heavy")", "[1]"}) {
    const ManifestFile file({row(""), row(R"(, "weight": )" + weight)});
    EXPECT_EQ(open_preference_data({file.path()}, {.max_bad = {.count = 1}})->summary().malformed, 1) << weight;
    const std::string message = error_message(
        ErrorClass::kInput, [&] { open_preference_data({file.path()}, {.max_bad = {.count = 0, .fraction = 0}}); });
    EXPECT_TRUE(mentions(message, "rows.jsonl line 2: the weight must be")) << message;
  }
}

TEST(Ties, KeepTheirHalvesBesideSoftLabels) {
  const ManifestFile file({R"({"prompt": "p", "images": ["a", "b"], "label": 0.5})",
                           R"({"prompt": "p", "images": ["a", "b"], "label": 0.2})"});
  EXPECT_EQ(open_preference_data({file.path()})->size(), 1);
  const auto kept = open_preference_data({file.path()}, {.keep_ties = true});
  ASSERT_EQ(kept->size(), 2);
  EXPECT_EQ(kept->labels(0), (std::vector<double>{0.5, 0.5}));
  EXPECT_NEAR(kept->labels(1)[0], 0.8, 1e-6);
  EXPECT_NEAR(preference_margin(*kept, 0), 0.0, 1e-6);
  EXPECT_NEAR(preference_margin(*kept, 1), 0.6, 1e-6);
}

}  // namespace
}  // namespace prefusion::data

#include "data/parquet_writer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/json_config.h"
#include "data/dataset.h"
#include "data/parquet_table.h"
#include "images/image_encode.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::TempDir;

Json read_with_python(const std::filesystem::path& path) {
  return read_json(tests::run_reference_script("make_data.py", {"check", path.string()}) / "found.json");
}

TEST(PickapicWriter, WritesWhatPyArrowPillowAndTheReaderRead) {
  const TempDir folder;
  const auto path = folder / "pairs.parquet";
  const at::Tensor image = at::arange(6 * 9 * 3).view({6, 9, 3}).to(at::kByte);
  {
    PickapicWriter writer(path, /*max_rows=*/3);
    for (int i = 0; i < 7; ++i) {
      writer.add({.jpg_0 = images::encode_png(image),
                  .jpg_1 = i % 2 == 0 ? images::encode_jpeg(image) : images::encode_webp(image),
                  .label_0 = i == 4 ? 0.5 : i % 2,
                  .caption = concat("prompt ", i, " ü"),
                  .model_0 = "a",
                  .model_1 = "b",
                  .has_label = i != 5,
                  .ranking_id = i});
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    writer.finish();
  }
  const Json found = read_with_python(path);
  EXPECT_EQ(found.at("row_groups"), Json({3, 3, 1}));
  const Json& row = found.at("rows")[3];
  EXPECT_EQ(row.at("caption"), "prompt 3 ü");
  EXPECT_EQ(row.at("label_0"), 1.0);
  EXPECT_EQ(row.at("label_1"), 0.0);
  EXPECT_EQ(row.at("jpg_0").at("format"), "PNG");
  EXPECT_EQ(row.at("jpg_1").at("format"), "WEBP");
  EXPECT_EQ(row.at("jpg_0").at("pixels"), row.at("jpg_1").at("pixels"));
  EXPECT_EQ(found.at("rows")[0].at("jpg_1").at("format"), "JPEG");
  EXPECT_EQ(row.at("jpg_0").at("size"), Json({9, 6}));
  EXPECT_EQ(row.at("best_image_uid"), row.at("image_0_uid"));
  EXPECT_EQ(found.at("rows")[4].at("best_image_uid"), "tie");

  const auto dataset = open_preference_data({path});
  EXPECT_EQ(dataset->size(), 5);
  EXPECT_EQ(dataset->summary().ties, 1);
  EXPECT_EQ(dataset->summary().missing_labels, 1);
  EXPECT_EQ(dataset->read(0).items[0].model, "b");
  EXPECT_EQ(dataset->read(0).items[0].encoded, images::encode_jpeg(image));
}

TEST(RankedListWriter, RoundTripsLists) {
  const TempDir folder;
  const auto path = folder / "lists.parquet";
  RankedListWriter writer(path, /*max_rows=*/2, /*max_bytes=*/1 << 20, {{"note", "ü"}});
  for (int i = 0; i < 5; ++i) {
    RankedRow row{.prompt = concat("list ", i)};
    for (int item = 0; item < 4; ++item) {
      row.images.push_back({.image = concat(i, " ", item),
                            .model = concat("m", item),
                            .seed = item,
                            .scores = {{"clip", item * 1.5}, {"taste", -item}},
                            .rank = static_cast<double>((item + i) % 4)});
    }
    writer.add(row);
  }
  writer.finish();
  const Json found = read_with_python(path);
  EXPECT_EQ(found.at("row_groups"), Json({2, 2, 1}));
  const Json& item = found.at("rows")[1].at("images")[2];
  EXPECT_EQ(item.at("image"), "1 2");
  EXPECT_EQ(item.at("seed"), 2);
  EXPECT_EQ(item.at("rank"), 3.0);
  EXPECT_EQ(item.at("scores"), Json::parse(R"([["clip", 3.0], ["taste", -2.0]])"));

  EXPECT_EQ(read_parquet_metadata(path, "note"), "ü");
  EXPECT_EQ(read_parquet_metadata(path, "other"), "");
  const auto dataset = open_preference_data({path}, {.group = GroupKind::kList});
  ASSERT_EQ(dataset->size(), 5);
  const PreferenceRecord record = dataset->read(1);
  EXPECT_EQ(record.items[0].encoded, "1 3");
  EXPECT_EQ(record.items[0].model, "m3");
  EXPECT_EQ(record.items[3].encoded, "1 2");
  EXPECT_NEAR(record.items[0].label, 0.5, 1e-6);  // best by one reward, worst by the other
}

TEST(PickapicWriter, LeavesNothingWithoutFinish) {
  const TempDir folder;
  {
    PickapicWriter writer(folder / "pairs.parquet", 1);
    writer.add({.jpg_0 = "a", .jpg_1 = "b", .label_0 = 1, .caption = "c"});
    error_message(ErrorClass::kUsage, [&] { writer.add({.label_0 = 1.5}); });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  error_message(ErrorClass::kRun, [&] { PickapicWriter(folder / "absent" / "pairs.parquet"); });
}

}  // namespace
}  // namespace prefusion::data

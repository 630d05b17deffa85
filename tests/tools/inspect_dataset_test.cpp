#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "images/image_encode.h"
#include "tests/data/manifest_file.h"
#include "tests/support/temp_dir.h"
#include "tests/tools/inspect_reference.h"
#include "tools/inspect.h"
#include "tools/inspection.h"

namespace prefusion::tools {
namespace {

namespace fs = std::filesystem;

bool mentions(const std::vector<std::string>& lines, const std::string& text) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

class InspectDataset : public testing::Test {
 protected:
  const fs::path& reference = tests::inspect_reference();
};

TEST_F(InspectDataset, CountsRowsTiesSizesAndGenerators) {
  const Inspection found = inspect_dataset(reference / "sound.parquet", 0);
  EXPECT_TRUE(found.sound()) << found.problems.front();
  const auto& facts = found.facts;
  EXPECT_EQ(facts.at("holds"), "pairs");
  EXPECT_EQ(facts.at("rows"), 3);
  EXPECT_EQ(facts.at("groups"), 3);
  EXPECT_EQ(facts.at("ties"), 1);
  EXPECT_EQ(facts.at("groups_all_tied"), 1);
  EXPECT_EQ(facts.at("images_read"), 6);
  EXPECT_EQ(facts.at("image_sizes"), OrderedJson({{"20x12", 4}, {"40x12", 2}}));
  EXPECT_EQ(facts.at("generators"), OrderedJson({{"alpha", 3}, {"beta", 3}}));
  EXPECT_EQ(facts.at("duplicate_images"), 3);  // red, blue and wide come twice each
  EXPECT_EQ(facts.at("groups_of_identical_images"), 0);
}

TEST_F(InspectDataset, NamesBrokenPicturesAndCountsMissingLabels) {
  const Inspection found = inspect_dataset(reference / "pairs.parquet", 0);
  EXPECT_FALSE(found.sound());
  EXPECT_TRUE(mentions(found.problems, "pairs.parquet row 5")) << to_text(found);
  EXPECT_EQ(found.facts.at("missing_labels"), 1);
  EXPECT_EQ(found.facts.at("corrupt_groups"), 1);
  EXPECT_EQ(found.facts.at("groups_of_identical_images"), 1);
}

TEST_F(InspectDataset, ReadsNoMoreGroupsThanAsked) {
  const Inspection found = inspect_dataset(reference / "sound.parquet", 2);
  EXPECT_EQ(found.facts.at("groups_read"), 2);
  EXPECT_TRUE(mentions(found.notes, "2 of 3"));
}

TEST_F(InspectDataset, NamesWhatRowsCarryBesidePicturesAndLabels) {
  const std::string images = R"({"images": ["a.png", "a.png"], )";
  const tests::ManifestFile file(
      {images + R"("label": 1, "prompts": ["x", "y"], "mask": "a.png", "scores": {"clip": [1, 2], "taste": [2, 1]}})",
       images + R"("label": 1, "prompt": "z", "mask": "b.png", "weight": 0.5, "scores": {"clip": [1, 2]}})"});
  write_file(file / "a.png", images::encode_png(at::zeros({8, 8, 3}, at::kByte)));
  write_file(file / "b.png", images::encode_png(at::zeros({8, 9, 3}, at::kByte)));
  const Inspection found = inspect_dataset(file.path(), 0);
  EXPECT_EQ(found.facts.at("rows_with_score"), OrderedJson({{"clip", 2}, {"taste", 1}}));
  EXPECT_EQ(found.facts.at("rows_with_weight"), 1);
  EXPECT_EQ(found.facts.at("rows_with_item_prompts"), 1);
  EXPECT_EQ(found.facts.at("rows_with_masks"), 2);
  EXPECT_TRUE(mentions(found.problems, "rows.jsonl line 2: the mask has 9x8 pixels")) << to_text(found);
}

TEST_F(InspectDataset, KnowsPairsOfPrompts) {
  const tests::ManifestFile file({R"({"image": "a.png", "prompts": ["good", "bad"]})"});
  write_file(file / "a.png", images::encode_png(at::zeros({8, 8, 3}, at::kByte)));
  const Inspection found = inspect_dataset(file.path(), 0);
  EXPECT_TRUE(found.sound()) << to_text(found);
  EXPECT_EQ(found.facts.at("holds"), "pairs of prompts for one picture");
}

TEST_F(InspectDataset, IsNotSoundWhenCutOff) {
  const tests::TempDir folder;
  fs::copy_file(reference / "sound.parquet", folder / "cut.parquet");
  fs::resize_file(folder / "cut.parquet", 200);
  EXPECT_FALSE(inspect_dataset(folder / "cut.parquet", 0).sound());
}

TEST_F(InspectDataset, CacheListsItsDatasetsAndNamesDamage) {
  const Inspection found = inspect_cache(reference / "cache.h5");
  EXPECT_TRUE(found.sound()) << found.problems.front();
  EXPECT_EQ(found.facts.at("attributes").at("format"), 1);
  EXPECT_EQ(found.facts.at("attributes").at("model"), "tiny");
  ASSERT_EQ(found.facts.at("datasets").size(), 2u);
  EXPECT_EQ(found.facts.at("datasets")[0].at("name"), "latents/mean");
  EXPECT_EQ(found.facts.at("datasets")[0].at("shape"), "[50, 4, 8, 8]");
  EXPECT_EQ(found.facts.at("datasets")[0].at("dtype"), "F32");

  const tests::TempDir folder;
  std::string bytes = read_file(reference / "cache.h5");
  const size_t compressed = bytes.find("\x78\x5e");  // zlib's mark: the first chunk
  ASSERT_NE(compressed, std::string::npos);
  bytes[compressed + 400] ^= 0x55;
  write_file(folder / "damaged.h5", bytes);
  EXPECT_TRUE(mentions(inspect_cache(folder / "damaged.h5").problems, "'latents/mean' is damaged"));
  write_file(folder / "cut.h5", bytes.substr(0, bytes.size() / 2));
  EXPECT_FALSE(inspect_cache(folder / "cut.h5").sound());
}

TEST_F(InspectDataset, PathsAreRecognised) {
  const auto kind = [](const fs::path& path) { return inspect({.path = path.string()}).kind; };
  EXPECT_EQ(kind(reference / "sound.parquet"), "dataset");
  EXPECT_EQ(kind(reference / "cache.h5"), "cache");
  EXPECT_EQ(kind(reference / "model"), "model");
  EXPECT_EQ(kind(reference / "model" / "unet"), "component");
  EXPECT_EQ(kind(reference / "lora"), "lora");
  EXPECT_EQ(kind(reference / "lora" / "pytorch_lora_weights.safetensors"), "lora");
  EXPECT_EQ(kind(reference / "model" / "vae" / "diffusion_pytorch_model.safetensors"), "tensors");
  EXPECT_THROW(inspect({.path = (reference / "missing").string()}), Error);
  EXPECT_THROW(inspect({.path = (reference / "tokenizer" / "merges.txt").string()}), Error);
}

}  // namespace
}  // namespace prefusion::tools

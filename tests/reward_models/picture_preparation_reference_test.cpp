// Preparation of pictures against transformers' Pillow processors, open_clip and torchvision, live.
#include "reward_models/picture_preparation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/safetensors.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;

class PreparationReference : public testing::Test {
 protected:
  static void SetUpTestSuite() { root_ = tests::run_reference_script("make_pictures.py", {"preparations"}); }

  // Every picture of OUTPUT/NAME.safetensors as the preparation makes it.
  static void expect_equal(const std::string& name, const PicturePreparation& preparation, double tolerance = 1e-6) {
    const TensorMap reference = read_safetensors(root_ / (name + ".safetensors"));
    EXPECT_FALSE(reference.empty()) << name;
    for (const auto& [picture, expected] : reference) {
      const images::Picture stored = images::decode_picture(read_file(root_ / "files" / picture));
      const at::Tensor found = prepare_picture(stored, preparation);
      ASSERT_EQ(found.sizes(), expected.sizes()) << name << ": " << picture;
      EXPECT_EQ(found.scalar_type(), at::kFloat);
      EXPECT_LE((found - expected).abs().max().item<double>(), tolerance) << name << ": " << picture;
    }
  }

  static PicturePreparation square(PreparationRecipe recipe, int64_t size) {
    return {.recipe = recipe, .shortest_edge = size, .crop_height = size, .crop_width = size};
  }

  static std::filesystem::path root_;
};
std::filesystem::path PreparationReference::root_;

TEST_F(PreparationReference, ObeysEveryConfigAsTransformersDoes) {
  size_t num_configs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root_ / "configs")) {
    expect_equal(entry.path().filename().string(), read_picture_preparation(entry.path()));
    ++num_configs;
  }
  EXPECT_EQ(num_configs, 15);
}

TEST_F(PreparationReference, ClipIsTheDefault) {
  tests::TempDir empty;
  expect_equal("clip", read_picture_preparation(empty.path()));
  EXPECT_EQ(read_picture_preparation(empty.path(), 336).output_size().height, 336);
}

TEST_F(PreparationReference, PillowRecipeIsThatOfOpenClip) {
  expect_equal("pillow.224", square(PreparationRecipe::kPillow, 224));
  PicturePreparation small = square(PreparationRecipe::kPillow, 33);
  small.filter = images::ResizeFilter::kBilinear;
  expect_equal("pillow.33", small);
  PicturePreparation larger = square(PreparationRecipe::kPillow, 20);
  larger.crop_height = 35;
  larger.crop_width = 26;
  expect_equal("pillow.larger_crop", larger);
  expect_equal("pillow.squash", {.recipe = PreparationRecipe::kPillow,
                                 .shortest_edge = 0,
                                 .resize_height = 30,
                                 .resize_width = 30,
                                 .crops = false,
                                 .mean = {0.5, 0.5, 0.5},
                                 .std = {0.25, 0.5, 1.0}});
}

TEST_F(PreparationReference, TensorRecipeIsThatOfTorchvision) {
  PicturePreparation preparation = square(PreparationRecipe::kTensor, 40);
  expect_equal("tensor.smooth", preparation);
  preparation.antialias = false;
  expect_equal("tensor.sharp", preparation);
  expect_equal("tensor.224", square(PreparationRecipe::kTensor, 224));
}

TEST_F(PreparationReference, OrientationIsAppliedOnlyOnRequest) {
  const images::Picture stored = images::decode_picture(read_file(root_ / "files" / "exif.png"));
  PicturePreparation preparation = square(PreparationRecipe::kTransformers, 40);
  const at::Tensor lying = prepare_picture(stored, preparation);
  preparation.applies_orientation = true;
  EXPECT_FALSE(at::equal(prepare_picture(stored, preparation), lying));
  EXPECT_TRUE(at::equal(prepare_picture(images::upright(stored), square(PreparationRecipe::kTransformers, 40)),
                        prepare_picture(stored, preparation)));
}

std::string refusal(const char* settings) {
  return error_message(ErrorClass::kInput,
                       [&] { parse_picture_preparation(parse_json(settings, "p.json"), "p.json"); });
}

TEST(PreprocessorConfig, RefusesWhatItCannotObeyByName) {
  EXPECT_TRUE(mentions(refusal(R"({"image_processor_type": "Siglip2ImageProcessor"})"), "Siglip2ImageProcessor"));
  EXPECT_TRUE(mentions(refusal(R"({"resample": 6})"), "resample"));
  EXPECT_TRUE(mentions(refusal(R"({"do_flip_channel_order": true})"), "do_flip_channel_order"));
  EXPECT_TRUE(mentions(refusal(R"({"size": {"longest_edge": 5}})"), "shortest_edge"));
  EXPECT_TRUE(mentions(refusal(R"({"size": {"height": 5}})"), "width"));
  EXPECT_TRUE(mentions(refusal(R"({"size": {"height": 5, "width": 5, "shortest_edge": 3}})"), "shortest_edge"));
  EXPECT_TRUE(mentions(refusal(R"({"size": 0})"), "size"));
  EXPECT_TRUE(mentions(refusal(R"({"size": "224"})"), "size"));
  EXPECT_TRUE(mentions(refusal(R"({"crop_size": {"shortest_edge": 224}})"), "height"));
  EXPECT_TRUE(mentions(refusal(R"({"crop_size": -3})"), "crop_size"));
  EXPECT_TRUE(mentions(refusal(R"({"crop_size": 1e9})"), "crop_size"));
  EXPECT_TRUE(mentions(refusal(R"({"image_mean": [0.5, 0.5]})"), "image_mean"));
  EXPECT_TRUE(mentions(refusal(R"({"image_std": [0.5, 0, 0.5]})"), "image_std"));
  EXPECT_TRUE(mentions(refusal(R"({"do_resize": "yes"})"), "do_resize"));
  EXPECT_TRUE(mentions(refusal(R"({"data_format": "channels_last"})"), "data_format"));
  EXPECT_TRUE(
      mentions(refusal(R"({"image_processor_type": "SiglipImageProcessor", "do_center_crop": true})"), "crop_size"));
  EXPECT_TRUE(mentions(refusal("[]"), "object"));
}

TEST(PicturePreparation, RefusesPicturesThatAreNotRgbWhereNothingConverts) {
  const images::Picture grey{.mode = images::PictureMode::kGrey, .pixels = at::zeros({9, 9, 1}, at::kByte)};
  const PicturePreparation preparation{.converts_to_rgb = false};
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { prepare_picture(grey, preparation); }), "RGB"));
}

TEST(PicturePreparation, KeysTellEverySettingApart) {
  const std::string key = PicturePreparation{}.key();
  EXPECT_EQ(PicturePreparation{}.key(), key);
  EXPECT_NE(PicturePreparation{.recipe = PreparationRecipe::kPillow}.key(), key);
  EXPECT_NE(PicturePreparation{.applies_orientation = true}.key(), key);
  EXPECT_NE(PicturePreparation{.longest_edge = 300}.key(), key);
  EXPECT_NE((PicturePreparation{.max_height = 3, .max_width = 3}.key()), key);
  EXPECT_NE(PicturePreparation{.antialias = false}.key(), key);
  EXPECT_NE(PicturePreparation{.pad_height = 300}.key(), key);
  EXPECT_NE((PicturePreparation{.std = {0.26862954, 0.26130258, 0.2757771}}.key()), key);
}

// Resized it would have millions of columns; only the crop is computed.
TEST(PicturePreparation, TakesPicturesOfExtremeShapes) {
  const images::Picture line = images::rgb_picture(at::full({1, 16384, 3}, 77, at::kByte));
  for (const auto recipe : {PreparationRecipe::kTransformers, PreparationRecipe::kPillow}) {
    const at::Tensor prepared = prepare_picture(line, {.recipe = recipe});
    EXPECT_EQ(prepared.sizes(), at::IntArrayRef({3, 224, 224}));
    EXPECT_EQ(prepared[0].min().item<float>(), prepared[0].max().item<float>());
  }
}

}  // namespace
}  // namespace prefusion::reward_models

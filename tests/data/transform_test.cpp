#include "data/transform.h"

#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "images/pillow_resize.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::data {
namespace {

using tests::error_message;

TEST(PillowResize, EqualsPillowToTheBit) {
  const TensorMap cases =
      read_safetensors(tests::run_reference_script("make_data.py", {"pictures"}) / "resized.safetensors");
  int compared = 0;
  for (const auto& [name, input] : cases) {
    if (!name.starts_with("input_")) continue;
    const std::string size = name.substr(6);
    for (const auto filter : {images::ResizeFilter::kBilinear, images::ResizeFilter::kBicubic}) {
      const at::Tensor& expected =
          cases.at((filter == images::ResizeFilter::kBilinear ? "bilinear_" : "bicubic_") + size);
      EXPECT_TRUE(at::equal(images::pillow_resize(input, expected.size(0), expected.size(1), filter), expected))
          << size;
      ++compared;
    }
    if (const auto expected = cases.find("transform_" + size); expected != cases.end()) {
      const TransformOptions options{.resolution = 48, .hflip = false};
      if (size == "3x400") {
        error_message(ErrorClass::kInput, [&, &picture = input] { transform_image(picture, options.square(), {}); });
        continue;
      }
      const auto found = transform_image(input, options.square(), decide_transform(options, DrawKey{.seed = 1}));
      EXPECT_TRUE(at::equal(to_image(found.pixel_values), expected->second)) << size;
    }
  }
  EXPECT_EQ(compared, 30);
}

TEST(PixelValues, AreMinusOneToOneAndComeBack) {
  const at::Tensor image = at::arange(256, at::kByte).view({16, 16, 1}).expand({16, 16, 3});
  const at::Tensor values = to_pixel_values(image);
  EXPECT_EQ(values.sizes(), (at::IntArrayRef{3, 16, 16}));
  EXPECT_EQ(values.min().item<float>(), -1.0f);
  EXPECT_EQ(values.max().item<float>(), 1.0f);
  EXPECT_TRUE(at::equal(to_image(values), image));
}

TEST(Transform, CropsAllItemsOfAGroupAtTheSamePlace) {
  const TransformOptions options{.resolution = 8, .random_crop = true};
  const at::Tensor ramp = at::arange(64).mul(4).to(at::kByte).view({1, 64, 1});
  const at::Tensor narrow = ramp.narrow(1, 0, 16).expand({8, 16, 3}).contiguous();
  const at::Tensor wide = ramp.expand({8, 64, 3}).contiguous();
  std::set<int64_t> seen;
  for (uint64_t draw = 0; draw < 40; ++draw) {
    const auto decision = decide_transform(options, DrawKey{.seed = 3, .item = 5, .draw = draw});
    const auto a = transform_image(narrow, options.square(), decision);
    const auto b = transform_image(wide, options.square(), decision);
    const auto left = [&](const TransformedImage& image, int64_t width) {
      return decision.is_flipped ? width - 8 - image.geometry.crop_left : image.geometry.crop_left;
    };
    EXPECT_NEAR(static_cast<double>(left(a, 16)) / 8, static_cast<double>(left(b, 64)) / 56, 0.13);
    EXPECT_EQ(a.geometry.original_width, 16);
    EXPECT_EQ(a.geometry.crop_top, 0);
    seen.insert(left(b, 64));
  }
  EXPECT_GT(seen.size(), 20u);
}

TEST(Transform, FlipsHalfOfTheDrawsAndSaysSo) {
  const TransformOptions options{.resolution = 4};
  const at::Tensor image = at::arange(4 * 6 * 3).to(at::kByte).view({4, 6, 3});
  int flips = 0;
  for (uint64_t draw = 0; draw < 200; ++draw) {
    const auto decision = decide_transform(options, DrawKey{.seed = 1, .item = 2, .draw = draw});
    flips += decision.is_flipped ? 1 : 0;
    auto expected = image.narrow(1, 1, 4);
    if (decision.is_flipped) expected = expected.flip({1});
    EXPECT_TRUE(at::equal(to_image(transform_image(image, options.square(), decision).pixel_values), expected));
  }
  EXPECT_NEAR(flips, 100, 30);
  const TransformOptions unflipped{.resolution = 4, .hflip = false};
  for (uint64_t draw = 0; draw < 50; ++draw)
    EXPECT_FALSE(decide_transform(unflipped, DrawKey{.draw = draw}).is_flipped);
}

TEST(Transform, IsNamedByWhatChangesThePixels) {
  const TransformOptions base{.resolution = 64};
  const TransformOptions random{.resolution = 64, .random_crop = true};
  const TransformOptions unflipped{.resolution = 64, .hflip = false};
  EXPECT_NE(transform_id(base, {64, 64}), transform_id(base, {65, 65}));
  EXPECT_NE(transform_id(base, {64, 80}), transform_id(base, {80, 64}));
  EXPECT_NE(transform_id(base, {64, 64}), transform_id(random, {64, 64}));
  EXPECT_EQ(transform_id(base, {64, 64}), transform_id(unflipped, {64, 64}));
}

TEST(ImageGeometry, MirroringACropIsCroppingTheMirroredPicture) {
  const TransformOptions options{.resolution = 16, .random_crop = true};
  for (const auto& [height, width] : {std::pair{40, 23}, std::pair{23, 40}, std::pair{16, 16}}) {
    const at::Tensor image = at::zeros({height, width, 3}, at::kByte);
    TransformDecision decision{.crop_y = 0.9, .crop_x = 0.2, .is_centred = false};
    const ImageGeometry plain = place_image(image, options.square(), decision).geometry;
    decision.is_flipped = true;
    const ImageGeometry flipped = place_image(image, options.square(), decision).geometry;
    const ImageGeometry found = mirrored(plain);
    EXPECT_EQ(found.crop_left, flipped.crop_left) << width;
    EXPECT_EQ(found.crop_top, flipped.crop_top);
    EXPECT_EQ(found.original_width, width);
  }
}

}  // namespace
}  // namespace prefusion::data

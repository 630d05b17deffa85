// Pictures in every mode against Pillow and transformers, live.
#include "images/picture.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "images/pillow_resize.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"

namespace prefusion::images {
namespace {

const std::map<std::string, PictureMode> kModes = {
    {"1", PictureMode::kBilevel},   {"L", PictureMode::kGrey},    {"LA", PictureMode::kGreyAlpha},
    {"I;16", PictureMode::kGrey16}, {"P", PictureMode::kPalette}, {"RGB", PictureMode::kRgb},
    {"RGBA", PictureMode::kRgba},   {"CMYK", PictureMode::kCmyk},
};
constexpr ResizeFilter kFilters[] = {ResizeFilter::kNearest, ResizeFilter::kLanczos, ResizeFilter::kBilinear,
                                     ResizeFilter::kBicubic, ResizeFilter::kBox,     ResizeFilter::kHamming};

class PictureReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = tests::run_reference_script("make_pictures.py", {"modes"});
    expected_ = read_safetensors(root_ / "modes.safetensors");
    modes_ = read_json(root_ / "modes.json").get<std::map<std::string, std::string>>();
  }
  static Picture picture(const std::string& name) { return decode_picture(read_file(root_ / "files" / name)); }
  static std::filesystem::path root_;
  static TensorMap expected_;
  static std::map<std::string, std::string> modes_;
};
std::filesystem::path PictureReference::root_;
TensorMap PictureReference::expected_;
std::map<std::string, std::string> PictureReference::modes_;

// Two versions of a lossy decoder may differ by one level.
testing::AssertionResult equal(const at::Tensor& found, const at::Tensor& expected, const std::string& name) {
  const bool is_lossy = name.find(".jpg") != std::string::npos;
  if (found.sizes() != expected.sizes()) return testing::AssertionFailure() << "another shape: " << found.sizes();
  const at::Tensor difference = (found.to(at::kInt) - expected.to(at::kInt)).abs();
  if (difference.max().item<int>() <= (is_lossy ? 1 : 0)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << difference.count_nonzero().item<int64_t>() << " values differ, by up to "
                                     << difference.max().item<int>();
}

TEST_F(PictureReference, KeepsTheModeOfPillow) {
  for (const auto& [name, mode] : modes_) EXPECT_EQ(picture(name).mode, kModes.at(mode)) << name;
}

TEST_F(PictureReference, ConvertsAsPillowDoes) {
  for (const auto& [name, mode] : modes_) {
    EXPECT_TRUE(equal(to_rgb(picture(name)), expected_.at(name + ".rgb"), name)) << name;
  }
}

TEST_F(PictureReference, CompositesAsTransformersDoes) {
  for (const auto& [name, mode] : modes_) {
    EXPECT_TRUE(equal(composite_on_white(picture(name)), expected_.at(name + ".white"), name)) << name;
  }
}

TEST_F(PictureReference, ResizesInItsOwnModeAsPillowDoes) {
  for (const auto& [name, mode] : modes_) {
    const Picture whole = picture(name);
    for (int filter = 0; filter < 6; ++filter) {
      for (const auto& [height, width] : {std::pair{19, 23}, {12, 41}, {29, 50}}) {
        const std::string key = concat(name, ".resized.", filter, '.', height, 'x', width);
        const at::Tensor& expected = expected_.at(key);
        const Picture all = pillow_resize(whole, height, width, kFilters[filter], {.height = height, .width = width});
        EXPECT_TRUE(equal(to_rgb(all), expected, name)) << key;
        const Picture part =
            pillow_resize(whole, height, width, kFilters[filter], {.top = 3, .left = 5, .height = 7, .width = 11});
        EXPECT_TRUE(equal(to_rgb(part), expected.slice(0, 3, 10).slice(1, 5, 16), name)) << key << " in a window";
      }
    }
  }
}

TEST_F(PictureReference, LeavesTheOrientationToTheCaller) {
  const Picture stored = picture("exif.png");
  EXPECT_EQ(stored.orientation, 6);
  EXPECT_EQ(stored.width(), 41);
  const Picture seen = upright(stored);
  EXPECT_EQ(seen.width(), 29);
  EXPECT_EQ(seen.orientation, 1);
  EXPECT_TRUE(at::equal(seen.pixels, decode_image(read_file(root_ / "files" / "exif.png"))));
}

TEST_F(PictureReference, RefusesFilesThatAreCutOff) {
  for (const auto& [name, mode] : modes_) {
    const std::string whole = read_file(root_ / "files" / name);
    for (const size_t size : {whole.size() / 3, whole.size() * 3 / 4}) {
      tests::error_message(ErrorClass::kInput, [&] { decode_picture(whole.substr(0, size)); });
    }
  }
}

TEST(PillowResize, RefusesWindowsOutsideThePicture) {
  const at::Tensor image = at::zeros({4, 4, 3}, at::kByte);
  tests::error_message(ErrorClass::kUsage, [&] {
    pillow_resize(image, 8, 8, ResizeFilter::kBicubic, {.top = 5, .height = 4, .width = 8});
  });
}

}  // namespace
}  // namespace prefusion::images

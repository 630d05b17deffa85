#include "images/image_decode.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/safetensors.h"
#include "images/image_codecs.h"
#include "images/image_encode.h"
#include "images/upright_size.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::images {
namespace {

using tests::error_message;
using tests::mentions;

class ImageDecode : public testing::Test {
 protected:
  static void SetUpTestSuite() { folder_ = tests::run_reference_script("make_data.py", {"pictures"}); }
  static std::string encoded(const std::string& name) { return read_file(folder_ / "pictures" / name); }
  static std::filesystem::path folder_;
};
std::filesystem::path ImageDecode::folder_;

int largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kInt) - b.to(at::kInt)).abs().max().item<int>();
}

TEST_F(ImageDecode, GivesThePixelsPillowGives) {
  for (const auto& [name, expected] : read_safetensors(folder_ / "pictures.safetensors")) {
    const at::Tensor found = decode_image(encoded(name));
    ASSERT_EQ(found.sizes(), expected.sizes()) << name;
    // The two libjpeg-turbo versions may differ by one level.
    EXPECT_LE(largest_difference(found, expected), name.ends_with(".jpg") ? 1 : 0) << name;
  }
}

TEST_F(ImageDecode, RefusesPicturesThatAreCutOff) {
  for (const auto& [name, expected] : read_safetensors(folder_ / "pictures.safetensors")) {
    const std::string whole = encoded(name);
    for (const double part : {0.0, 0.02, 0.3, 0.6, 0.9, 0.97}) {
      const std::string cut = whole.substr(0, static_cast<size_t>(part * static_cast<double>(whole.size())));
      EXPECT_FALSE(error_message(ErrorClass::kInput, [&] { decode_image(cut); }).empty()) << name << " at " << part;
    }
  }
}

TEST_F(ImageDecode, AcceptsAJpegThatLacksOnlyItsEndMarker) {
  const std::string whole = encoded("jpeg_420.jpg");
  const at::Tensor found = decode_image(std::string_view(whole).substr(0, whole.size() - 2));
  EXPECT_TRUE(at::equal(found, decode_image(whole)));
}

TEST_F(ImageDecode, RefusesDamagedPixelsOfPng) {
  std::string damaged = encoded("png_rgb.png");
  damaged[damaged.size() / 2] ^= 0x10;
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { decode_image(damaged); }), "PNG"));
}

// Whatever a byte is changed to, the result is a picture or an input error.
TEST_F(ImageDecode, SurvivesRandomDamage) {
  uint32_t random = 12345;
  const auto next = [&] { return random = random * 1664525u + 1013904223u; };
  for (const char* name : {"jpeg_progressive.jpg", "jpeg_exif_6.jpg", "png_palette_alpha.png", "png_interlaced.png",
                           "webp_alpha_lossy.webp", "webp_exif.webp"}) {
    const std::string whole = encoded(name);
    for (int round = 0; round < 200; ++round) {
      std::string damaged = whole;
      for (int i = 0; i < 3; ++i) damaged[next() % damaged.size()] = static_cast<char>(next() >> 24);
      try {
        const at::Tensor image = decode_image(damaged, {.max_side = 4096, .max_pixels = 1'000'000});
        EXPECT_EQ(image.size(2), 3);
      } catch (const Error& error) {
        EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      }
    }
  }
}

TEST_F(ImageDecode, RefusesHugePicturesFromTheHeaderAlone) {
  std::string jpeg = encoded("jpeg_444.jpg");
  const size_t frame = jpeg.find("\xFF\xC0");
  jpeg.replace(frame + 5, 4, "\xFF\xDC\xFF\xDC");
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { decode_image(jpeg); }), "65500x65500"));

  std::string png = encoded("png_rgb.png");
  png.replace(16, 8, std::string("\x00\x01\x86\xA0\x00\x00\x00\x01", 8));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { decode_image(png); }), "100000x1"));

  std::string webp = encoded("webp_exif.webp");
  ASSERT_EQ(webp.substr(12, 4), "VP8X");
  webp.replace(24, 6, "\xFF\x3F\x00\xFF\x3F\x00", 6);
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { decode_image(webp); }), "16384x16384"));
}

TEST_F(ImageDecode, ObeysTheLimitsOfTheCaller) {
  const std::string bytes = encoded("png_rgb.png");  // 53 x 37
  EXPECT_NO_THROW(decode_image(bytes, {.max_side = 53, .max_pixels = 53 * 37}));
  error_message(ErrorClass::kInput, [&] { decode_image(bytes, {.max_side = 52, .max_pixels = 53 * 37}); });
  error_message(ErrorClass::kInput, [&] { decode_image(bytes, {.max_side = 53, .max_pixels = 53 * 37 - 1}); });
}

TEST_F(ImageDecode, ReadsHeadersOfEveryFormat) {
  for (const char* name :
       {"jpeg_444.jpg", "jpeg_progressive.jpg", "jpeg_exif_6.jpg", "png_rgb.png", "png_interlaced.png",
        "webp_lossy.webp", "webp_lossless.webp", "webp_alpha_lossy.webp", "webp_exif.webp"}) {
    const ImageHeader header = read_image_header(encoded(name));
    EXPECT_EQ(header.width, 53) << name;
    EXPECT_EQ(header.height, 37) << name;
  }
}

TEST_F(ImageDecode, KnowsTheSizeBeforeItDecodes) {
  int turned = 0;
  for (const auto& [name, pixels] : read_safetensors(folder_ / "pictures.safetensors")) {
    const std::string bytes = encoded(name);
    EXPECT_EQ(upright_size(bytes), (PictureSize{pixels.size(0), pixels.size(1)})) << name;
    turned += read_image_header(bytes).width != pixels.size(1) ? 1 : 0;
    for (size_t length = 0; length < bytes.size(); length += 1 + length / 8) {
      try {
        upright_size(std::string_view(bytes).substr(0, length));
      } catch (const Error& error) {
        EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      }
    }
  }
  EXPECT_GT(turned, 2);
}

TEST(ImageFormat, RefusesOtherFilesByName) {
  for (const char* bytes : {"", "GIF89a.............", "<html>", "\xFF\xD8", "RIFF....WAVEfmt ....", "\x89PNG\r\n"}) {
    error_message(ErrorClass::kInput, [&] { decode_image(bytes); });
  }
}

TEST(ExifOrientation, IsOneForMalformedBlocks) {
  using namespace std::string_literals;
  EXPECT_EQ(exif_orientation(""), 1);
  EXPECT_EQ(exif_orientation("II*\0"s), 1);
  EXPECT_EQ(exif_orientation("II*\0\xFF\xFF\xFF\xFF"s), 1);
  const std::string entry = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"s;
  EXPECT_EQ(exif_orientation(entry), 6);
  EXPECT_EQ(exif_orientation("Exif\0\0"s + entry), 6);
  std::string ninth = entry;
  ninth[19] = 9;
  EXPECT_EQ(exif_orientation(ninth), 1);
}

TEST(ImageEncode, RoundTripsLosslessFormatsAndKeepsJpegClose) {
  at::manual_seed(0);
  const at::Tensor smooth = at::arange(40)
                                .view({40, 1, 1})
                                .mul(3)
                                .add(at::arange(56).view({1, 56, 1}))
                                .add(at::arange(3).mul(20))
                                .to(at::kByte);
  EXPECT_TRUE(at::equal(decode_image(encode_png(smooth)), smooth));
  EXPECT_TRUE(at::equal(decode_image(encode_webp(smooth)), smooth));
  EXPECT_LE(largest_difference(decode_image(encode_jpeg(smooth)), smooth), 8);
  EXPECT_LT(encode_jpeg(smooth, {.quality = 30, .subsamples_chroma = true}).size(), encode_jpeg(smooth).size());
  error_message(ErrorClass::kUsage, [&] { encode_jpeg(smooth, {.quality = 0}); });
}

}  // namespace
}  // namespace prefusion::images

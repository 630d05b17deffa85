#include "tools/start_picture.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"
#include "images/image_decode.h"
#include "images/picture.h"
#include "images/pillow_resize.h"

namespace prefusion::tools {
namespace {

images::Picture read_picture(const std::filesystem::path& file, const char* flag) {
  check_input(std::filesystem::is_regular_file(file), flag, " ", file.string(), ": no such file");
  try {
    return images::upright(images::decode_picture(read_file(file)));
  } catch (const Error& error) {
    fail_input(flag, " ", file.string(), ": ", error.what());
  }
}

// 16-bit grey, of which Pillow makes white, by its upper 8 bits.
images::Picture with_8_bits(images::Picture picture) {
  if (picture.mode != images::PictureMode::kGrey16) return picture;
  picture.pixels = picture.pixels.bitwise_right_shift(8).to(at::kByte);
  picture.mode = images::PictureMode::kGrey;
  return picture;
}

// uint8 [H, W, C] -> fp32 [1, C, H, W] in [0, 1].
at::Tensor unit_pixels(const at::Tensor& pixels) {
  return (pixels.to(at::kFloat) / 255.0).permute({2, 0, 1}).unsqueeze(0).contiguous();
}

// Brightness as Pillow's convert("L") computes it, in 16 bits of fraction: uint8 [H, W, 3] -> [H, W, 1].
at::Tensor brightness(const at::Tensor& rgb) {
  const at::Tensor weights = at::tensor({19595, 38470, 7471}, at::kInt);
  const at::Tensor sum = (rgb.to(at::kInt) * weights).sum(2, /*keepdim=*/true) + 0x8000;
  return sum.bitwise_right_shift(16).to(at::kByte);
}

// Resized in its own mode, then grey, then black or white.
at::Tensor read_mask(const std::filesystem::path& file, pipelines::ImageSize size) {
  const images::Picture picture = with_8_bits(read_picture(file, "--mask-image"));
  const images::ResizeWindow whole = {.height = size.height_px, .width = size.width_px};
  const images::Picture resized =
      images::pillow_resize(picture, size.height_px, size.width_px, images::ResizeFilter::kLanczos, whole);
  const at::Tensor mask = unit_pixels(brightness(images::to_rgb(resized))).ge(0.5).to(at::kFloat);
  check_input(mask.any().item<bool>(), "--mask-image ", file.string(),
              ": is black all over, so nothing is to be repainted; white marks what is");
  return mask;
}

bool keeps_picture_size(pipelines::ModelFamily family) {
  return family != pipelines::ModelFamily::kStableDiffusion3 && family != pipelines::ModelFamily::kFlux;
}

int64_t rounded_down(int64_t pixels, int64_t unit, const std::filesystem::path& file) {
  check_input(pixels >= unit, "--init-image ", file.string(), ": a side of ", pixels,
              " pixels is too small for this model, which needs ", unit, "; give --height and --width");
  return pixels - pixels % unit;
}

void report_resize(const images::Picture& picture, pipelines::ImageSize size) {
  if (picture.height() == size.height_px && picture.width() == size.width_px) return;
  const auto ratio = [](int64_t width, int64_t height) {
    return static_cast<double>(width) / static_cast<double>(height);
  };
  const double stretch = ratio(size.width_px, size.height_px) / ratio(picture.width(), picture.height());
  const std::string text = concat("the start picture of ", picture.width(), "x", picture.height(), " is resized to ",
                                  size.width_px, "x", size.height_px);
  constexpr double kNoticed = 0.02;
  if (std::abs(std::log(stretch)) > kNoticed) {
    log_warn(text, ", which distorts it; --height and --width set another size");
  } else {
    log_info(text);
  }
}

}  // namespace

void apply_start_picture(const StartPictureOptions& options, const pipelines::TextToImage& pipeline,
                         pipelines::GenerateOptions& sampling) {
  const bool has_mask = options.has_mask();
  if (options.init_image.empty()) {
    check_usage(!has_mask, "--mask-image needs --init-image, the picture it belongs to");
    check_usage(!options.strength, "--strength needs --init-image; without, all pictures start from noise");
    return;
  }
  const images::Picture picture = with_8_bits(read_picture(options.init_image, "--init-image"));
  if (!has_mask && keeps_picture_size(pipeline.components().family)) {
    const int64_t unit = pipeline.size_unit_px();
    if (sampling.height_px == 0) sampling.height_px = rounded_down(picture.height(), unit, options.init_image);
    if (sampling.width_px == 0) sampling.width_px = rounded_down(picture.width(), unit, options.init_image);
  }
  const pipelines::ImageSize size = pipeline.image_size(sampling);
  report_resize(picture, size);
  const at::Tensor resized =
      images::pillow_resize(images::to_rgb(picture), size.height_px, size.width_px, images::ResizeFilter::kLanczos);
  sampling.start.pixel_values = unit_pixels(resized) * 2.0 - 1.0;
  if (has_mask) sampling.start.mask = read_mask(options.mask_image, size);
  sampling.start.strength = options.strength_or_default();
}

}  // namespace prefusion::tools

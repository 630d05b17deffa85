#include "images/image_decode.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "images/image_codecs.h"
#include "images/picture.h"

namespace prefusion::images {
namespace {

uint32_t byte_at(std::string_view bytes, size_t position) {
  check_input(position < bytes.size(), "the picture is cut off in its header");
  return static_cast<uint8_t>(bytes[position]);
}

uint32_t big_endian(std::string_view bytes, size_t position, int count) {
  uint32_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | byte_at(bytes, position + i);
  return value;
}

uint32_t little_endian(std::string_view bytes, size_t position, int count) {
  uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | byte_at(bytes, position + i);
  return value;
}

// Walks the JPEG markers to the first frame header.
ImageHeader jpeg_header(std::string_view bytes) {
  size_t position = 2;
  for (;;) {
    while (byte_at(bytes, position) != 0xFF) ++position;  // libjpeg, too, skips stray bytes between segments
    while (byte_at(bytes, position) == 0xFF) ++position;
    const uint32_t marker = byte_at(bytes, position++);
    const bool is_frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (is_frame) {
      return ImageHeader{.format = ImageFormat::kJpeg,
                         .width = big_endian(bytes, position + 5, 2),
                         .height = big_endian(bytes, position + 3, 2)};
    }
    check_input(marker != 0xD9 && marker != 0xDA, "the JPEG has no frame header");
    const bool has_no_length = marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8) || marker == 0x00;
    if (!has_no_length) position += big_endian(bytes, position, 2);
  }
}

ImageHeader png_header(std::string_view bytes) {
  check_input(bytes.substr(12, 4) == "IHDR", "the PNG has no IHDR chunk");
  return ImageHeader{
      .format = ImageFormat::kPng, .width = big_endian(bytes, 16, 4), .height = big_endian(bytes, 20, 4)};
}

ImageHeader webp_header(std::string_view bytes) {
  const std::string_view chunk = bytes.substr(12, 4);
  if (chunk == "VP8X") {
    check_input((byte_at(bytes, 20) & 2) == 0, "animated WebP files are not supported");
    return ImageHeader{.format = ImageFormat::kWebp,
                       .width = little_endian(bytes, 24, 3) + int64_t{1},
                       .height = little_endian(bytes, 27, 3) + int64_t{1}};
  }
  if (chunk == "VP8L") {
    const uint32_t bits = little_endian(bytes, 21, 4);
    return ImageHeader{.format = ImageFormat::kWebp,
                       .width = (bits & 0x3FFF) + int64_t{1},
                       .height = (bits >> 14 & 0x3FFF) + int64_t{1}};
  }
  check_input(chunk == "VP8 ", "the WebP file has an unknown first chunk");
  return ImageHeader{.format = ImageFormat::kWebp,
                     .width = little_endian(bytes, 26, 2) & 0x3FFF,
                     .height = little_endian(bytes, 28, 2) & 0x3FFF};
}

}  // namespace

ImageHeader read_image_header(std::string_view encoded) {
  using namespace std::string_view_literals;
  if (encoded.starts_with("\xFF\xD8\xFF"sv)) return jpeg_header(encoded);
  if (encoded.starts_with("\x89PNG\r\n\x1A\n"sv)) {
    check_input(encoded.size() >= 24, "the picture is cut off in its header");
    return png_header(encoded);
  }
  if (encoded.starts_with("RIFF"sv) && encoded.size() >= 16 && encoded.substr(8, 4) == "WEBP"sv) {
    return webp_header(encoded);
  }
  fail_input(encoded.empty() ? "the picture is empty" : "the picture is no JPEG, PNG or WebP file");
}

Picture decode_picture(std::string_view encoded, const ImageLimits& limits) {
  const ImageHeader header = read_image_header(encoded);
  check_input(header.width > 0 && header.height > 0, "the picture has no size: ", header.width, "x", header.height);
  check_input(header.width <= limits.max_side && header.height <= limits.max_side &&
                  header.width * header.height <= limits.max_pixels,
              "the picture has ", header.width, "x", header.height, " pixels, at most ", limits.max_side,
              " a side and ", limits.max_pixels, " in all are read");
  switch (header.format) {
    case ImageFormat::kJpeg: return decode_jpeg(encoded, header);
    case ImageFormat::kPng: return decode_png(encoded, header);
    case ImageFormat::kWebp: break;
  }
  return decode_webp(encoded, header);
}

at::Tensor decode_image(std::string_view encoded, const ImageLimits& limits) {
  Picture picture = decode_picture(encoded, limits);
  if (picture.mode == PictureMode::kGrey16) {
    picture.pixels = picture.pixels.bitwise_right_shift(8).to(at::kByte);
    picture.mode = PictureMode::kGrey;
  }
  return apply_orientation(to_rgb(picture), picture.orientation);
}

}  // namespace prefusion::images

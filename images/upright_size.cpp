#include "images/upright_size.h"

#include <utility>

#include "images/image_codecs.h"
#include "images/image_decode.h"

namespace prefusion::images {
namespace {

// A number of `count` bytes; what lies behind the end reads as 0, so that a walk ends there.
size_t number_at(std::string_view bytes, size_t position, int count, bool is_little) {
  size_t value = 0;
  for (int i = 0; i < count; ++i) {
    const size_t at = position + static_cast<size_t>(is_little ? count - 1 - i : i);
    value = value << 8 | (at < bytes.size() ? static_cast<uint8_t>(bytes[at]) : 0U);
  }
  return value;
}

std::string_view part(std::string_view bytes, size_t begin, size_t length) {
  return begin < bytes.size() ? bytes.substr(begin, length) : std::string_view();
}

// The first Exif segment before the pixels.
std::string_view jpeg_exif(std::string_view bytes) {
  constexpr uint8_t kApp1 = 0xE1, kStartOfScan = 0xDA;
  size_t position = 2;
  while (position + 4 <= bytes.size()) {
    if (static_cast<uint8_t>(bytes[position]) != 0xFF) {
      ++position;  // stray bytes between segments are skipped
      continue;
    }
    const auto marker = static_cast<uint8_t>(bytes[position + 1]);
    if (marker == kStartOfScan) break;
    const bool has_no_length = marker == 0xFF || marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8);
    if (has_no_length) {
      position += marker == 0xFF ? 1 : 2;
      continue;
    }
    const size_t length = number_at(bytes, position + 2, 2, /*is_little=*/false);
    const std::string_view content = part(bytes, position + 4, length < 2 ? 0 : length - 2);
    if (marker == kApp1 && content.starts_with(std::string_view("Exif\0\0", 6))) return content;
    position += 2 + length;
  }
  return {};
}

std::string_view png_exif(std::string_view bytes) {
  size_t position = 8;
  while (position + 8 <= bytes.size()) {
    const size_t length = number_at(bytes, position, 4, /*is_little=*/false);
    if (part(bytes, position + 4, 4) == "eXIf") return part(bytes, position + 8, length);
    position += 12 + length;
  }
  return {};
}

std::string_view webp_exif(std::string_view bytes) {
  size_t position = 12;
  while (position + 8 <= bytes.size()) {
    const size_t length = number_at(bytes, position + 4, 4, /*is_little=*/true);
    if (part(bytes, position, 4) == "EXIF") return part(bytes, position + 8, length);
    position += 8 + length + (length & 1);
  }
  return {};
}

std::string_view find_exif(std::string_view bytes, ImageFormat format) {
  switch (format) {
    case ImageFormat::kJpeg: return jpeg_exif(bytes);
    case ImageFormat::kPng: return png_exif(bytes);
    case ImageFormat::kWebp: break;
  }
  return webp_exif(bytes);
}

}  // namespace

PictureSize upright_size(std::string_view encoded) {
  const ImageHeader header = read_image_header(encoded);
  PictureSize size{.height = header.height, .width = header.width};
  // Orientations 5 to 8 store columns as rows.
  if (exif_orientation(find_exif(encoded, header.format)) >= 5) std::swap(size.height, size.width);
  return size;
}

}  // namespace prefusion::images

#include <ATen/ATen.h>
#include <webp/decode.h>

#include "core/error.h"
#include "images/image_codecs.h"

namespace prefusion::images {
namespace {

uint32_t little_endian(std::string_view bytes, size_t position) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[position + i]);
  return value;
}

// The EXIF chunk of the RIFF container.
std::string find_exif(std::string_view bytes) {
  size_t position = 12;
  while (position + 8 <= bytes.size()) {
    const size_t size = little_endian(bytes, position + 4);
    if (bytes.substr(position, 4) == "EXIF") return std::string(bytes.substr(position + 8, size));
    position += 8 + size + (size & 1);
  }
  return {};
}

}  // namespace

StoredImage decode_webp(std::string_view encoded, const ImageHeader& header) {
  const auto* data = reinterpret_cast<const uint8_t*>(encoded.data());
  WebPBitstreamFeatures features;
  check_input(WebPGetFeatures(data, encoded.size(), &features) == VP8_STATUS_OK, "the WebP file is corrupt or cut off");
  check_input(features.width == header.width && features.height == header.height,
              "the WebP file says two different sizes");
  StoredImage image{.pixels = at::empty({header.height, header.width, 3}, at::kByte), .exif = find_exif(encoded)};
  const auto stride = static_cast<int>(header.width * 3);
  const uint8_t* done = WebPDecodeRGBInto(data, encoded.size(), image.pixels.data_ptr<uint8_t>(),
                                          static_cast<size_t>(image.pixels.numel()), stride);
  check_input(done != nullptr, "the WebP file is corrupt or cut off");
  return image;
}

}  // namespace prefusion::images

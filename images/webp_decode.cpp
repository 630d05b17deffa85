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

Picture decode_webp(std::string_view encoded, const ImageHeader& header) {
  const auto* data = reinterpret_cast<const uint8_t*>(encoded.data());
  WebPBitstreamFeatures features;
  check_input(WebPGetFeatures(data, encoded.size(), &features) == VP8_STATUS_OK, "the WebP file is corrupt or cut off");
  check_input(features.width == header.width && features.height == header.height,
              "the WebP file says two different sizes");
  const bool has_alpha = features.has_alpha != 0;
  Picture picture{.mode = has_alpha ? PictureMode::kRgba : PictureMode::kRgb,
                  .pixels = at::empty({header.height, header.width, has_alpha ? 4 : 3}, at::kByte),
                  .orientation = exif_orientation(find_exif(encoded))};
  const auto decode = has_alpha ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
  const uint8_t* done = decode(data, encoded.size(), picture.pixels.data_ptr<uint8_t>(),
                               static_cast<size_t>(picture.pixels.numel()), static_cast<int>(picture.pixels.stride(0)));
  check_input(done != nullptr, "the WebP file is corrupt or cut off");
  return picture;
}

}  // namespace prefusion::images

#pragma once

#include <compare>
#include <cstdint>
#include <string_view>

namespace prefusion::images {

struct PictureSize {
  int64_t height = 0;  // pixels
  int64_t width = 0;

  auto operator<=>(const PictureSize&) const = default;
};

// The size of an encoded picture as it is meant to be seen, its EXIF orientation applied, from the container's headers:
// no pixel is decoded. Input error as of read_image_header().
PictureSize upright_size(std::string_view encoded);

}  // namespace prefusion::images

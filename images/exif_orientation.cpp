#include <ATen/ATen.h>

#include "images/image_codecs.h"

namespace prefusion::images {
namespace {

// Reads a TIFF structure; positions outside it read as 0, so that no check can be forgotten.
class TiffReader {
 public:
  explicit TiffReader(std::string_view bytes) : bytes_(bytes), is_little_(bytes.starts_with("II")) {}

  uint32_t number(size_t position, int count) const {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const size_t at = position + static_cast<size_t>(is_little_ ? count - 1 - i : i);
      value = value << 8 | (at < bytes_.size() ? static_cast<uint8_t>(bytes_[at]) : 0u);
    }
    return value;
  }

 private:
  std::string_view bytes_;
  bool is_little_;
};

}  // namespace

int exif_orientation(std::string_view exif) {
  if (exif.starts_with(std::string_view("Exif\0\0", 6))) exif.remove_prefix(6);
  if (!exif.starts_with("II") && !exif.starts_with("MM")) return 1;
  constexpr uint32_t kOrientationTag = 0x0112;
  constexpr uint32_t kShort = 3;
  const TiffReader tiff(exif);
  if (tiff.number(2, 2) != 42) return 1;
  const size_t directory = tiff.number(4, 4);
  const uint32_t count = tiff.number(directory, 2);
  for (uint32_t i = 0; i < count && directory + 2 + 12 * size_t{i} < exif.size(); ++i) {
    const size_t entry = directory + 2 + 12 * size_t{i};
    if (tiff.number(entry, 2) != kOrientationTag) continue;
    const uint32_t value = tiff.number(entry + 2, 2) == kShort ? tiff.number(entry + 8, 2) : 1;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

at::Tensor apply_orientation(const at::Tensor& pixels, int orientation) {
  if (orientation == 1) return pixels;
  at::Tensor turned = pixels;
  if (orientation >= 5) turned = turned.transpose(0, 1);  // 5 to 8 store columns as rows
  const bool flips_rows = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const bool flips_columns = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  if (flips_rows) turned = turned.flip({0});
  if (flips_columns) turned = turned.flip({1});
  return turned.contiguous();
}

}  // namespace prefusion::images

#include "data/image_encode.h"

#include <png.h>

#include "core/error.h"

namespace prefusion::data {

std::string encode_png(const at::Tensor& image) {
  check_run(image.dim() == 3 && image.size(2) == 3 && image.scalar_type() == at::kByte,
            "encode_png: expected uint8 [H, W, 3], found ", shape_text(image.sizes()));
  const at::Tensor packed = image.cpu().contiguous();
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(packed.size(1));
  header.height = static_cast<png_uint_32>(packed.size(0));
  header.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&header, nullptr, &size, /*convert_to_8_bit=*/0, packed.data_ptr(), /*row_stride=*/0, nullptr);
  std::string bytes(size, '\0');
  check_run(png_image_write_to_memory(&header, bytes.data(), &size, 0, packed.data_ptr(), 0, nullptr) != 0,
            "encode_png: ", header.message);
  bytes.resize(size);
  return bytes;
}

}  // namespace prefusion::data

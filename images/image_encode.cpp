#include "images/image_encode.h"

#include <ATen/ATen.h>
#include <png.h>
#include <webp/encode.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include <jpeglib.h>

#include "core/error.h"

namespace prefusion::images {
namespace {

at::Tensor packed_rgb(const at::Tensor& image, const char* what) {
  check_usage(image.dim() == 3 && image.size(2) == 3 && image.scalar_type() == at::kByte && image.numel() > 0, what,
              ": expected uint8 [H, W, 3], found ", shape_text(image.sizes()));
  return image.cpu().contiguous();
}

// Of all that the encoder may complain about (no memory, an impossible size) nothing can be repaired here, and no
// object stands between this throw and the caller but libjpeg's own, which encode_jpeg frees.
[[noreturn]] void on_jpeg_error(j_common_ptr info) {
  char message[JMSG_LENGTH_MAX];
  info->err->format_message(info, message);
  fail_run("encode_jpeg: ", message);
}

class JpegEncoder {
 public:
  JpegEncoder() {
    encoder_.err = jpeg_std_error(&errors_);
    errors_.error_exit = on_jpeg_error;
    jpeg_create_compress(&encoder_);
    jpeg_mem_dest(&encoder_, &bytes_, &size_);
  }
  ~JpegEncoder() {
    jpeg_destroy_compress(&encoder_);
    std::free(bytes_);
  }
  JpegEncoder(const JpegEncoder&) = delete;
  JpegEncoder& operator=(const JpegEncoder&) = delete;

  jpeg_compress_struct* operator->() { return &encoder_; }
  jpeg_compress_struct* get() { return &encoder_; }
  std::string bytes() const { return {reinterpret_cast<const char*>(bytes_), size_}; }

 private:
  jpeg_compress_struct encoder_{};
  jpeg_error_mgr errors_{};
  unsigned char* bytes_ = nullptr;
  unsigned long size_ = 0;
};

}  // namespace

std::string encode_png(const at::Tensor& image) {
  const at::Tensor packed = packed_rgb(image, "encode_png");
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(packed.size(1));
  header.height = static_cast<png_uint_32>(packed.size(0));
  header.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&header, nullptr, &size, /*convert_to_8_bit=*/0, packed.data_ptr(), /*row_stride=*/0,
                            nullptr);
  std::string bytes(size, '\0');
  check_run(png_image_write_to_memory(&header, bytes.data(), &size, 0, packed.data_ptr(), 0, nullptr) != 0,
            "encode_png: ", header.message);
  bytes.resize(size);
  return bytes;
}

std::string encode_jpeg(const at::Tensor& image, const JpegOptions& options) {
  check_usage(options.quality >= 1 && options.quality <= 100, "a JPEG quality lies between 1 and 100, not ",
              options.quality);
  const at::Tensor packed = packed_rgb(image, "encode_jpeg");
  check_usage(packed.size(0) <= JPEG_MAX_DIMENSION && packed.size(1) <= JPEG_MAX_DIMENSION,
              "encode_jpeg: ", packed.size(1), "x", packed.size(0), " pixels are too many for a JPEG");
  JpegEncoder encoder;
  encoder->image_width = static_cast<JDIMENSION>(packed.size(1));
  encoder->image_height = static_cast<JDIMENSION>(packed.size(0));
  encoder->input_components = 3;
  encoder->in_color_space = JCS_RGB;
  jpeg_set_defaults(encoder.get());
  jpeg_set_quality(encoder.get(), options.quality, TRUE);
  const int factor = options.subsamples_chroma ? 2 : 1;
  encoder->comp_info[0].h_samp_factor = factor;
  encoder->comp_info[0].v_samp_factor = factor;
  jpeg_start_compress(encoder.get(), TRUE);
  while (encoder->next_scanline < encoder->image_height) {
    JSAMPROW row = packed.data_ptr<uint8_t>() + int64_t{encoder->next_scanline} * packed.size(1) * 3;
    jpeg_write_scanlines(encoder.get(), &row, 1);
  }
  jpeg_finish_compress(encoder.get());
  return encoder.bytes();
}

std::string encode_webp(const at::Tensor& image, float quality) {
  check_usage(quality >= 0, "a WebP quality is not negative, got ", quality);
  const at::Tensor packed = packed_rgb(image, "encode_webp");
  const auto width = static_cast<int>(packed.size(1));
  const auto height = static_cast<int>(packed.size(0));
  const uint8_t* pixels = packed.const_data_ptr<uint8_t>();
  uint8_t* encoded = nullptr;
  const size_t size = quality > 100 ? WebPEncodeLosslessRGB(pixels, width, height, width * 3, &encoded)
                                    : WebPEncodeRGB(pixels, width, height, width * 3, quality, &encoded);
  check_run(size > 0, "encode_webp: encoding ", width, "x", height, " pixels failed");
  std::string bytes(reinterpret_cast<const char*>(encoded), size);
  WebPFree(encoded);
  return bytes;
}

}  // namespace prefusion::images

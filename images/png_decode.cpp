#include <ATen/ATen.h>
#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "images/image_codecs.h"

namespace prefusion::images {
namespace {

struct ErrorState {
  char message[256];
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<ErrorState*>(png_get_error_ptr(png));
  std::snprintf(state->message, sizeof state->message, "%s", message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep out, size_t count) {
  auto* rest = static_cast<std::string_view*>(png_get_io_ptr(png));
  if (rest->size() < count) png_error(png, "the file is cut off");
  std::memcpy(out, rest->data(), count);
  rest->remove_prefix(count);
}

class PngDecoder {
 public:
  explicit PngDecoder(std::string_view encoded) : rest_(encoded) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &errors_, on_error, on_warning);
    info_ = png_ ? png_create_info_struct(png_) : nullptr;
    check_run(info_ != nullptr, "out of memory while decoding a PNG");
    png_set_read_fn(png_, &rest_, read_bytes);
    // Text and profile chunks are of no use here and may unpack to anything.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
    constexpr png_uint_32 kMaxSide = 1 << 20;  // the caller's limits are tighter
    png_set_user_limits(png_, kMaxSide, kMaxSide);
    png_set_chunk_malloc_max(png_, size_t{8} << 20);
    png_set_chunk_cache_max(png_, 64);
    // Also the checksum of the pixel data: damage must not come out as a picture.
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_DEFAULT);
  }
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  template <typename Action>
  void attempt(const Action& action) {
    if (setjmp(png_jmpbuf(png_))) fail_input("the PNG cannot be decoded: ", errors_.message);
    action();
  }

  png_structp png() { return png_; }
  png_infop info() { return info_; }

 private:
  ErrorState errors_{};
  std::string_view rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

// Everything to 8-bit RGB; alpha and transparency chunks are dropped, the colours under them stay.
void request_rgb(png_structp png, png_infop info) {
  const int colour = png_get_color_type(png, info);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (png_get_bit_depth(png, info) == 16) png_set_strip_16(png);
  if (colour == PNG_COLOR_TYPE_GRAY || colour == PNG_COLOR_TYPE_GRAY_ALPHA) png_set_gray_to_rgb(png);
  const bool has_alpha = (colour & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0;
  if (has_alpha) png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
}

}  // namespace

StoredImage decode_png(std::string_view encoded, const ImageHeader& header) {
  PngDecoder decoder(encoded);
  decoder.attempt([&] {
    png_read_info(decoder.png(), decoder.info());
    request_rgb(decoder.png(), decoder.info());
  });
  const auto row_bytes = static_cast<int64_t>(png_get_rowbytes(decoder.png(), decoder.info()));
  check_input(row_bytes == header.width * 3, "the PNG has an unexpected pixel layout (", row_bytes, " bytes for ",
              header.width, " pixels)");
  StoredImage image{.pixels = at::empty({header.height, header.width, 3}, at::kByte)};
  std::vector<png_bytep> rows(static_cast<size_t>(header.height));
  for (int64_t y = 0; y < header.height; ++y) rows[y] = image.pixels.data_ptr<uint8_t>() + y * row_bytes;
  png_bytep* row_pointers = rows.data();
  decoder.attempt([&] {
    png_read_image(decoder.png(), row_pointers);
    png_read_end(decoder.png(), decoder.info());
  });
  png_uint_32 exif_size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(decoder.png(), decoder.info(), &exif_size, &exif) != 0 && exif) {
    image.exif.assign(reinterpret_cast<const char*>(exif), exif_size);
  }
  return image;
}

}  // namespace prefusion::images

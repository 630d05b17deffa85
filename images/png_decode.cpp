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

// Asks for the bytes of the mode that Pillow opens such a file in.
PictureMode request_mode(png_structp png, png_infop info) {
  const int depth = png_get_bit_depth(png, info);
  const int colour = png_get_color_type(png, info);
  png_set_interlace_handling(png);
  if (colour == PNG_COLOR_TYPE_PALETTE) {
    png_set_packing(png);
    return PictureMode::kPalette;
  }
  if (colour == PNG_COLOR_TYPE_GRAY) {
    if (depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    return depth == 1 ? PictureMode::kBilevel : depth == 16 ? PictureMode::kGrey16 : PictureMode::kGrey;
  }
  if (depth == 16) png_set_strip_16(png);
  if (colour == PNG_COLOR_TYPE_RGB) return PictureMode::kRgb;
  if (colour == PNG_COLOR_TYPE_RGB_ALPHA) return PictureMode::kRgba;
  if (depth != 16) return PictureMode::kGreyAlpha;
  png_set_gray_to_rgb(png);
  return PictureMode::kRgba;
}

int64_t bytes_per_pixel(PictureMode mode) {
  switch (mode) {
    case PictureMode::kGreyAlpha:
    case PictureMode::kGrey16: return 2;
    case PictureMode::kRgb: return 3;
    case PictureMode::kRgba: return 4;
    default: return 1;
  }
}

// PLTE and tRNS.
void read_colours(png_structp png, png_infop info, Picture& picture) {
  png_bytep alphas = nullptr;
  int num_alphas = 0;
  png_color_16p key = nullptr;
  png_get_tRNS(png, info, &alphas, &num_alphas, &key);
  if (picture.mode == PictureMode::kPalette) {
    png_colorp colours = nullptr;
    int num_colours = 0;
    png_get_PLTE(png, info, &colours, &num_colours);
    picture.palette = at::zeros({256, 4}, at::kByte);
    auto* entry = picture.palette.data_ptr<uint8_t>();
    for (int i = 0; i < 256; ++i, entry += 4) {
      if (i < num_colours) {
        entry[0] = colours[i].red;
        entry[1] = colours[i].green;
        entry[2] = colours[i].blue;
      }
      entry[3] = alphas && i < num_alphas ? alphas[i] : 255;
    }
  } else if (key && picture.mode == PictureMode::kRgb) {
    const auto low = [](png_uint_16 number) { return static_cast<uint8_t>(number & 0xFF); };
    picture.transparent_colour = at::tensor(at::ArrayRef<uint8_t>({low(key->red), low(key->green), low(key->blue)}));
  } else if (key && (picture.mode == PictureMode::kGrey || picture.mode == PictureMode::kGrey16)) {
    picture.transparent_colour = at::full({1}, key->gray & 0xFF, at::kByte);
  } else if (key && picture.mode == PictureMode::kBilevel) {
    picture.transparent_colour = at::full({1}, key->gray != 0 ? 255 : 0, at::kByte);
  }
}

// [H, W, 2] bytes, the upper first, to int32 [H, W, 1].
at::Tensor join_bytes(const at::Tensor& bytes) {
  at::Tensor joined = at::empty({bytes.size(0), bytes.size(1), 1}, at::kInt);
  const auto* in = bytes.const_data_ptr<uint8_t>();
  auto* out = joined.data_ptr<int32_t>();
  for (int64_t i = 0; i < joined.numel(); ++i) out[i] = in[2 * i] << 8 | in[2 * i + 1];
  return joined;
}

}  // namespace

Picture decode_png(std::string_view encoded, const ImageHeader& header) {
  PngDecoder decoder(encoded);
  Picture picture;
  decoder.attempt([&] {
    png_read_info(decoder.png(), decoder.info());
    picture.mode = request_mode(decoder.png(), decoder.info());
    png_read_update_info(decoder.png(), decoder.info());
  });
  const auto row_size = static_cast<int64_t>(png_get_rowbytes(decoder.png(), decoder.info()));
  check_input(row_size == header.width * bytes_per_pixel(picture.mode), "the PNG has an unexpected pixel layout (",
              row_size, " bytes for ", header.width, " pixels)");
  picture.pixels = at::empty({header.height, header.width, bytes_per_pixel(picture.mode)}, at::kByte);
  std::vector<png_bytep> rows(static_cast<size_t>(header.height));
  for (int64_t y = 0; y < header.height; ++y) rows[y] = picture.pixels.data_ptr<uint8_t>() + y * row_size;
  png_bytep* row_pointers = rows.data();
  decoder.attempt([&] {
    png_read_image(decoder.png(), row_pointers);
    png_read_end(decoder.png(), decoder.info());
  });
  read_colours(decoder.png(), decoder.info(), picture);
  if (picture.mode == PictureMode::kGrey16) picture.pixels = join_bytes(picture.pixels);
  png_uint_32 exif_size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(decoder.png(), decoder.info(), &exif_size, &exif) != 0 && exif) {
    picture.orientation = exif_orientation({reinterpret_cast<const char*>(exif), exif_size});
  }
  return picture;
}

}  // namespace prefusion::images

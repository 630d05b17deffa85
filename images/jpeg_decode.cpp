#include <ATen/ATen.h>

#include <csetjmp>
#include <cstdio>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

#include "core/error.h"
#include "images/image_codecs.h"

namespace prefusion::images {
namespace {

constexpr int kMaxScans = 500;  // a progressive file of thousands of scans costs minutes, not memory

// libjpeg's error manager first, so that a pointer to it is a pointer to this.
struct ErrorState {
  jpeg_error_mgr manager;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  info->err->format_message(info, state->message);
  std::longjmp(state->jump, 1);
}

// Warnings that mean missing or damaged pixels, which libjpeg fills with grey, are errors.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_BOGUS_PROGRESSION: on_error(info);
    default: return;
  }
}

void on_progress(j_common_ptr info) {
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(info);
  if (decoder->input_scan_number <= kMaxScans) return;
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  std::snprintf(state->message, sizeof state->message, "more than %d scans", kMaxScans);
  std::longjmp(state->jump, 1);
}

struct MemorySource {
  jpeg_source_mgr manager;
  bool reached_end;
};

// Past the end there is an end-of-image marker: a file that lacks only that is complete, one that lacks more raises
// JWRN_HIT_MARKER.
boolean fill_input(j_decompress_ptr decoder) {
  static const JOCTET kEnd[2] = {0xFF, JPEG_EOI};
  reinterpret_cast<MemorySource*>(decoder->src)->reached_end = true;
  decoder->src->next_input_byte = kEnd;
  decoder->src->bytes_in_buffer = sizeof kEnd;
  return TRUE;
}

void skip_input(j_decompress_ptr decoder, long count) {
  if (count <= 0) return;
  if (static_cast<size_t>(count) > decoder->src->bytes_in_buffer) {
    fill_input(decoder);
    return;
  }
  decoder->src->next_input_byte += count;
  decoder->src->bytes_in_buffer -= static_cast<size_t>(count);
}

void ignore(j_decompress_ptr) {}

// A decoder whose every use stands inside attempt().
class JpegDecoder {
 public:
  explicit JpegDecoder(std::string_view encoded) {
    decoder_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = on_error;
    errors_.manager.emit_message = on_message;
    jpeg_create_decompress(&decoder_);
    source_.manager.init_source = ignore;
    source_.manager.term_source = ignore;
    source_.manager.fill_input_buffer = fill_input;
    source_.manager.skip_input_data = skip_input;
    source_.manager.resync_to_restart = jpeg_resync_to_restart;
    source_.manager.next_input_byte = reinterpret_cast<const JOCTET*>(encoded.data());
    source_.manager.bytes_in_buffer = encoded.size();
    decoder_.src = &source_.manager;
    progress_.progress_monitor = on_progress;
    decoder_.progress = &progress_;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&decoder_); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Runs a function without destructors of its own; libjpeg leaves it by longjmp on an error.
  template <typename Action>
  void attempt(const Action& action) {
    if (setjmp(errors_.jump)) fail_input("the JPEG cannot be decoded: ", errors_.message);
    action();
  }

  jpeg_decompress_struct& operator*() { return decoder_; }
  jpeg_decompress_struct* operator->() { return &decoder_; }
  bool reached_end() const { return source_.reached_end; }

 private:
  jpeg_decompress_struct decoder_{};
  ErrorState errors_{};
  MemorySource source_{};
  jpeg_progress_mgr progress_{};
};

std::string find_exif(const jpeg_decompress_struct& decoder) {
  for (auto* marker = decoder.marker_list; marker; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker == JPEG_APP0 + 1 && data.starts_with(std::string_view("Exif\0\0", 6))) return std::string(data);
  }
  return {};
}

PictureMode choose_colours(jpeg_decompress_struct& decoder) {
  switch (decoder.num_components) {
    case 1: decoder.out_color_space = JCS_GRAYSCALE; return PictureMode::kGrey;
    case 3: decoder.out_color_space = JCS_RGB; return PictureMode::kRgb;
    case 4: decoder.out_color_space = JCS_CMYK; return PictureMode::kCmyk;
    default: fail_input("the JPEG has ", decoder.num_components, " colour components, 1, 3 and 4 are known");
  }
}

}  // namespace

Picture decode_jpeg(std::string_view encoded, const ImageHeader& header) {
  JpegDecoder decoder(encoded);
  decoder.attempt([&] {
    jpeg_save_markers(&*decoder, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&*decoder, TRUE);
  });
  check_input(decoder->image_width == header.width && decoder->image_height == header.height,
              "the JPEG has two frame headers of different size");
  Picture picture{.mode = choose_colours(*decoder), .orientation = exif_orientation(find_exif(*decoder))};
  picture.pixels = at::empty({header.height, header.width, decoder->num_components}, at::kByte);
  auto* pixels = picture.pixels.data_ptr<uint8_t>();
  const int64_t row_size = picture.pixels.stride(0);
  decoder.attempt([&] {
    jpeg_start_decompress(&*decoder);
    while (decoder->output_scanline < decoder->output_height) {
      JSAMPROW row = pixels + int64_t{decoder->output_scanline} * row_size;
      jpeg_read_scanlines(&*decoder, &row, 1);
    }
  });
  // Scans of a progressive file may be missing without a trace in the pixels but their quality.
  check_input(!decoder.reached_end() || !jpeg_has_multiple_scans(&*decoder), "the JPEG is cut off");
  // Adobe, and with it everybody, stores 255 for no ink.
  if (picture.mode == PictureMode::kCmyk) picture.pixels.bitwise_not_();
  return picture;
}

}  // namespace prefusion::images

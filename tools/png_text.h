#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Text chunks of PNG files (PNG specification, section 11.3.4). OpenCV writes the pictures but no text.
namespace prefusion::tools {

struct PngText {
  std::string keyword;  // 1 to 79 printable ASCII characters
  std::string text;     // UTF-8
};

// The PNG with a chunk for each text put behind its header: tEXt where the text is Latin-1, else iTXt (UTF-8).
// Run error when `png` is no PNG.
std::string insert_png_text(std::string_view png, const std::vector<PngText>& texts);

// The tEXt and uncompressed iTXt chunks of a PNG. Stops at the first broken chunk, so a truncated file gives what is
// whole; empty when `png` is no PNG.
std::vector<PngText> read_png_text(std::string_view png);

}  // namespace prefusion::tools

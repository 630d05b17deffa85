#include "text/base64.h"

#include <cstdint>

#include "core/error.h"

namespace prefusion::text {

std::string decode_base64(std::string_view text, const std::string& where) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  check_input(text.size() % 4 == 0, where, ": ", text.size(), " characters are no base64 text");
  const size_t num_padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  text.remove_suffix(num_padding);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = kDigits.find(text[i]);
    check_input(digit != std::string_view::npos, where, ": character ", i, " is no base64 digit");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 > 0) bytes.push_back(static_cast<char>(bits >> (6 - 2 * (i % 4))));
  }
  return bytes;
}

}  // namespace prefusion::text

#include "text/single_byte_encodings.h"

#include <unicode/ucnv.h>

#include <memory>

#include "core/error.h"

namespace prefusion::text {

SingleByteEncoding::SingleByteEncoding(std::string name, bool is_sloppy)
    : name_(std::move(name)), is_sloppy_(is_sloppy) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UConverter, void (*)(UConverter*)> converter(ucnv_open(name_.c_str(), &status), ucnv_close);
  check_run(U_SUCCESS(status), "ICU has no encoding '", name_, "'");
  for (CodePoint byte = 0; byte < 256; ++byte) {
    characters_[byte] = byte;
    if (byte < 0x80) continue;  // ASCII in all of them
    const char input = static_cast<char>(byte);
    const char* position = &input;
    UErrorCode decoded = U_ZERO_ERROR;
    const UChar32 character = ucnv_getNextUChar(converter.get(), &position, &input + 1, &decoded);
    constexpr UChar32 kUnassigned = 0xFFFD;
    if (U_SUCCESS(decoded) && character != kUnassigned) characters_[byte] = static_cast<CodePoint>(character);
  }
  // ICU follows IBM, where this is the Greek letter; for Microsoft and Python it is the micro sign.
  if (name_ == "ibm-437") characters_[0xE6] = 0xB5;
  if (is_sloppy_) characters_[0x1A] = 0xFFFD;
  for (size_t byte = 0; byte < 256; ++byte) bytes_.emplace(characters_[byte], static_cast<uint8_t>(byte));
}

std::optional<std::string> SingleByteEncoding::encode(std::u32string_view text) const {
  std::string bytes;
  bytes.reserve(text.size());
  for (const CodePoint character : text) {
    const auto found = bytes_.find(character);
    if (found == bytes_.end()) return std::nullopt;
    bytes.push_back(static_cast<char>(found->second));
  }
  return bytes;
}

const std::vector<SingleByteEncoding>& misread_encodings() {
  static const std::vector<SingleByteEncoding> kEncodings = [] {
    std::vector<SingleByteEncoding> encodings;
    encodings.emplace_back("ISO-8859-1", /*is_sloppy=*/false);
    for (const char* name :
         {"windows-1252", "windows-1251", "windows-1250", "windows-1253", "windows-1254", "windows-1257"}) {
      encodings.emplace_back(name, /*is_sloppy=*/true);
    }
    for (const char* name : {"ISO-8859-2", "macintosh", "ibm-437"}) encodings.emplace_back(name, /*is_sloppy=*/false);
    return encodings;
  }();
  return kEncodings;
}

CodePoint windows_1252_character(uint8_t byte) {
  return misread_encodings()[1].decode(byte);
}

}  // namespace prefusion::text

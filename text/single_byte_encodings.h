#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/unicode.h"

namespace prefusion::text {

// One of the old encodings with a byte a character. "Sloppy" ones, as browsers have them, give unassigned bytes the
// meaning of Latin-1; there the control byte 1A stands for U+FFFD, which is what is left of a byte that was lost.
class SingleByteEncoding {
 public:
  // By ICU's name of the encoding.
  SingleByteEncoding(std::string name, bool is_sloppy);

  // Nothing where a character is not in the encoding.
  std::optional<std::string> encode(std::u32string_view text) const;
  CodePoint decode(uint8_t byte) const { return characters_[byte]; }

  const std::string& name() const { return name_; }
  bool is_sloppy() const { return is_sloppy_; }

 private:
  std::string name_;
  bool is_sloppy_;
  std::array<CodePoint, 256> characters_;
  std::unordered_map<CodePoint, uint8_t> bytes_;
};

// Latin-1 and Windows-1252 first: the encodings that text is misread in, in the order in which ftfy tries them.
const std::vector<SingleByteEncoding>& misread_encodings();

// The character of a byte in Windows-1252, Latin-1 where there is none.
CodePoint windows_1252_character(uint8_t byte);

}  // namespace prefusion::text

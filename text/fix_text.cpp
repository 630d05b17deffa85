#include "text/fix_text.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <algorithm>

#include "core/error.h"
#include "text/html_entities.h"
#include "text/mojibake.h"
#include "text/single_byte_encodings.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

// Lines longer than this are fixed in pieces.
constexpr size_t kMaxPiece = 1'000'000;

std::u32string to_code_points(std::string_view text) {
  std::u32string code_points;
  for (size_t position = 0; position < text.size();) code_points += next_code_point(text, position);
  return code_points;
}

std::string to_utf8(std::u32string_view code_points) {
  std::string text;
  for (const CodePoint code_point : code_points) append_utf8(text, code_point);
  return text;
}

std::string normalize(const icu::Normalizer2* normalizer, UErrorCode status, const std::string& text) {
  std::string normalized;
  icu::StringByteSink<std::string> sink(&normalized);
  if (U_SUCCESS(status)) normalizer->normalizeUTF8(0, text, sink, nullptr, status);
  check_run(U_SUCCESS(status), "Unicode normalization failed: ", u_errorName(status));
  return normalized;
}

std::string compose(const std::string& text) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFCInstance(status);
  return normalize(normalizer, status, text);
}

// The ordinary form of a full-width or half-width character.
std::u32string ordinary_width(CodePoint character) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFKCInstance(status);
  return to_code_points(normalize(normalizer, status, to_utf8(std::u32string(1, character))));
}

struct Ligature {
  CodePoint character;
  std::u32string_view letters;
};
constexpr std::array kLigatures = {
    Ligature{U'Ĳ', U"IJ"}, Ligature{U'ĳ', U"ij"}, Ligature{U'ŉ', U"ʼn"}, Ligature{U'Ǳ', U"DZ"},  Ligature{U'ǲ', U"Dz"},
    Ligature{U'ǳ', U"dz"}, Ligature{U'Ǆ', U"DŽ"}, Ligature{U'ǅ', U"Dž"}, Ligature{U'ǆ', U"dž"},  Ligature{U'Ǉ', U"LJ"},
    Ligature{U'ǈ', U"Lj"}, Ligature{U'ǉ', U"lj"}, Ligature{U'Ǌ', U"NJ"}, Ligature{U'ǋ', U"Nj"},  Ligature{U'ǌ', U"nj"},
    Ligature{U'ﬀ', U"ff"}, Ligature{U'ﬁ', U"fi"}, Ligature{U'ﬂ', U"fl"}, Ligature{U'ﬃ', U"ffi"}, Ligature{U'ﬄ', U"ffl"},
    Ligature{U'ﬅ', U"ſt"}, Ligature{U'ﬆ', U"st"},
};

bool is_between(CodePoint character, CodePoint first, CodePoint last) {
  return character >= first && character <= last;
}

void append_plain(std::u32string& output, CodePoint character) {
  if (is_between(character, 0x80, 0x9F)) character = windows_1252_character(static_cast<uint8_t>(character));
  const auto ligature = std::find_if(kLigatures.begin(), kLigatures.end(),
                                     [&](const Ligature& entry) { return entry.character == character; });
  if (ligature != kLigatures.end()) {
    // The letters of one of them begin with a quote.
    for (const CodePoint letter : ligature->letters) output += letter == 0x2BC ? U'\'' : letter;
  } else if (character == 0x3000) {
    output += U' ';
  } else if (is_between(character, 0xFF01, 0xFFEF)) {
    output += ordinary_width(character);
  } else if (is_between(character, 0x201C, 0x201F)) {
    output += U'"';
  } else if (character == 0x2BC || is_between(character, 0x2018, 0x201B)) {
    output += U'\'';
  } else if (character == 0x2028 || character == 0x2029 || character == 0x85) {
    output += U'\n';
  } else {
    output += character;
  }
}

// Length of ESC [ digits and semicolons, letter; or 0.
size_t terminal_escape_length(std::u32string_view text) {
  if (!text.starts_with(U"\x1B[")) return 0;
  size_t end = 2;
  while (end < text.size() &&
         (text[end] == U';' || u_charType(static_cast<UChar32>(text[end])) == U_DECIMAL_DIGIT_NUMBER)) {
    ++end;
  }
  const bool has_letter = end < text.size() && (is_between(text[end], U'a', U'z') || is_between(text[end], U'A', U'Z'));
  return has_letter ? end + 1 : 0;
}

// Controls without an effect on what is seen: of ASCII all but white space; some of Unicode's own.
bool is_invisible(CodePoint c) {
  return c <= 0x08 || c == 0x0B || is_between(c, 0x0E, 0x1F) || c == 0x7F || is_between(c, 0x206A, 0x206F) ||
         c == 0xFEFF || is_between(c, 0xFFF9, 0xFFFC);
}

std::u32string remove_controls(std::u32string_view text) {
  std::u32string kept;
  for (size_t i = 0; i < text.size();) {
    const size_t escape = terminal_escape_length(text.substr(i));
    if (escape == 0 && !is_invisible(text[i])) kept += text[i];
    i += std::max<size_t>(escape, 1);
  }
  return kept;
}

std::u32string join_line_breaks(std::u32string_view text) {
  std::u32string joined;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == U'\r' && i + 1 < text.size() && text[i + 1] == U'\n') continue;
    joined += text[i] == U'\r' ? U'\n' : text[i];
  }
  return joined;
}

// Repeats until nothing changes: a repair may bring to light what another one repairs.
std::string fix_piece(std::string text, bool unescapes) {
  while (true) {
    std::u32string points = to_code_points(unescapes ? unescape_whole_references(text) : text);
    points = repair_mojibake(std::move(points));
    std::u32string plain;
    for (const CodePoint point : points) append_plain(plain, point);
    std::string fixed = compose(to_utf8(remove_controls(join_line_breaks(plain))));
    if (fixed == text) return text;
    text = std::move(fixed);
  }
}

}  // namespace

std::string fix_text(std::string_view text) {
  std::string fixed;
  bool unescapes = true;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    size_t count = 0;
    while (end < text.size() && count < kMaxPiece && (end == begin || text[end - 1] != '\n')) {
      next_code_point(text, end);
      ++count;
    }
    const std::string_view piece = text.substr(begin, end - begin);
    // A literal < means that the text is markup, whose references are left alone, also on the lines that follow.
    if (piece.find('<') != std::string_view::npos) unescapes = false;
    fixed += fix_piece(std::string(piece), unescapes);
    begin = end;
  }
  return fixed;
}

}  // namespace prefusion::text

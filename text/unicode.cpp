#include "text/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/error.h"

namespace prefusion::text {
namespace {

struct Range {
  CodePoint first;
  CodePoint last;
};

// Assigned between Unicode 15.0 (ICU 72) and Unicode 16.0, which the reference tokenizer's regular expressions know.
constexpr std::array<Range, 22> kNewLetters = {
    {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
     {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
     {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
     {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
     {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}}};
constexpr std::array<Range, 7> kNewNumbers = {{{0x10D40, 0x10D49},
                                               {0x116D0, 0x116E3},
                                               {0x11BF0, 0x11BF9},
                                               {0x16130, 0x16139},
                                               {0x16D70, 0x16D79},
                                               {0x1CCF0, 0x1CCF9},
                                               {0x1E5F1, 0x1E5FA}}};

// Lower-case mappings of Unicode 16 and 17, which Rust's standard library knows.
struct Shift {
  CodePoint first;
  CodePoint last;
  CodePoint lower_of_first;
};
constexpr std::array<Shift, 10> kNewLower = {{{0x1C89, 0x1C89, 0x1C8A},
                                              {0xA7CB, 0xA7CB, 0x264},
                                              {0xA7CC, 0xA7CC, 0xA7CD},
                                              {0xA7CE, 0xA7CE, 0xA7CF},
                                              {0xA7D2, 0xA7D2, 0xA7D3},
                                              {0xA7D4, 0xA7D4, 0xA7D5},
                                              {0xA7DA, 0xA7DA, 0xA7DB},
                                              {0xA7DC, 0xA7DC, 0x19B},
                                              {0x10D50, 0x10D65, 0x10D70},
                                              {0x16EA0, 0x16EB8, 0x16EBB}}};

template <size_t N>
bool contains(const std::array<Range, N>& ranges, CodePoint code_point) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& range) { return code_point >= range.first && code_point <= range.last; });
}

CodePoint lower_code_point(CodePoint code_point) {
  const auto lower = static_cast<CodePoint>(u_tolower(static_cast<UChar32>(code_point)));
  if (lower != code_point) return lower;
  for (const Shift& shift : kNewLower) {
    if (code_point >= shift.first && code_point <= shift.last) return shift.lower_of_first + (code_point - shift.first);
  }
  return code_point;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char byte) { return byte < 0x80; });
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  const size_t length = text.size();
  size_t position = 0;
  while (position < length) {
    const size_t start = position;
    UChar32 code_point;
    U8_NEXT(bytes, position, length, code_point);
    if (code_point < 0) return start;
  }
  return std::string_view::npos;
}

CodePoint next_code_point(std::string_view text, size_t& position) {
  UChar32 code_point;
  U8_NEXT_UNSAFE(reinterpret_cast<const uint8_t*>(text.data()), position, code_point);
  return static_cast<CodePoint>(code_point);
}

CodePoint previous_code_point(std::string_view text, size_t& position) {
  do {
    --position;
  } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  size_t start = position;
  return next_code_point(text, start);
}

void append_utf8(std::string& text, CodePoint code_point) {
  std::array<uint8_t, 4> bytes;
  size_t length = 0;
  U8_APPEND_UNSAFE(bytes.data(), length, static_cast<UChar32>(code_point));
  text.append(reinterpret_cast<const char*>(bytes.data()), length);
}

std::string to_nfc(std::string_view text) {
  if (is_ascii(text)) return std::string(text);
  check_input(text.size() < static_cast<size_t>(std::numeric_limits<int32_t>::max()), "text of ", text.size(),
              " bytes is too long to tokenize");
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFCInstance(status);
  std::string normalized;
  icu::StringByteSink<std::string> sink(&normalized);
  if (U_SUCCESS(status)) {
    normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr,
                              status);
  }
  check_run(U_SUCCESS(status), "Unicode normalization failed: ", u_errorName(status));
  return normalized;
}

std::string to_lower(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const CodePoint code_point = next_code_point(text, position);
    if (code_point == 0x130) {  // the one code point whose lower case has two: i and a combining dot above
      lower += "i\xCC\x87";
    } else {
      append_utf8(lower, lower_code_point(code_point));
    }
  }
  return lower;
}

CharClass char_class(CodePoint code_point) {
  const auto icu_char = static_cast<UChar32>(code_point);
  const uint32_t category = U_GET_GC_MASK(icu_char);
  if (category & U_GC_L_MASK) return CharClass::kLetter;
  if (category & U_GC_N_MASK) return CharClass::kNumber;
  if (u_isUWhiteSpace(icu_char)) return CharClass::kSpace;
  if (code_point >= 0x1C89 && contains(kNewLetters, code_point)) return CharClass::kLetter;
  if (code_point >= 0x10D40 && contains(kNewNumbers, code_point)) return CharClass::kNumber;
  return CharClass::kOther;
}

bool is_word_char(CodePoint code_point) {
  const auto icu_char = static_cast<UChar32>(code_point);
  const uint32_t category = U_GET_GC_MASK(icu_char);
  return u_isUAlphabetic(icu_char) || char_class(code_point) == CharClass::kLetter ||
         (category & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_hasBinaryProperty(icu_char, UCHAR_JOIN_CONTROL);
}

}  // namespace prefusion::text

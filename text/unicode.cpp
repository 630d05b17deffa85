#include "text/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "text/unicode_tables.h"

namespace prefusion::text {
namespace {

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

using GetNormalizer = const icu::Normalizer2* (*)(UErrorCode&);

void append_normalized(std::string& normalized, std::string_view text, GetNormalizer get_normalizer) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = get_normalizer(status);
  std::string part;
  icu::StringByteSink<std::string> sink(&part);
  if (U_SUCCESS(status)) {
    const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
    normalizer->normalizeUTF8(0, piece, sink, nullptr, status);
  }
  check_run(U_SUCCESS(status), "Unicode normalization failed: ", u_errorName(status));
  normalized += part;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char byte) { return byte < 0x80; });
}

std::string normalize(std::string_view text, GetNormalizer get_normalizer) {
  std::string normalized;
  if (is_ascii(text)) return normalized.assign(text);
  check_input(text.size() < static_cast<size_t>(std::numeric_limits<int32_t>::max()), "text of ", text.size(),
              " bytes is too long to tokenize");
  size_t begin = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const CodePoint code_point = next_code_point(text, position);
    if (code_point < kNeverReordered.front().first || !contains(kNeverReordered, code_point)) continue;
    append_normalized(normalized, text.substr(begin, start - begin), get_normalizer);
    normalized.append(text, start, position - start);
    begin = position;
  }
  append_normalized(normalized, text.substr(begin), get_normalizer);
  return normalized;
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
  return normalize(text, icu::Normalizer2::getNFCInstance);
}

std::string to_nfd(std::string_view text) {
  return normalize(text, icu::Normalizer2::getNFDInstance);
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

std::string python_lower(std::string_view text) {
  check_input(text.size() < static_cast<size_t>(std::numeric_limits<int32_t>::max()), "text of ", text.size(),
              " bytes is too long to tokenize");
  UErrorCode status = U_ZERO_ERROR;
  std::string lower;
  icu::StringByteSink<std::string> sink(&lower);
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  icu::CaseMap::utf8ToLower(/*locale=*/"", /*options=*/0, piece, sink, /*edits=*/nullptr, status);
  check_run(U_SUCCESS(status), "lower case failed: ", u_errorName(status));
  return lower;
}

std::string_view python_strip(std::string_view text) {
  const auto is_stripped = [](CodePoint c) { return is_space(c) || (c >= 0x1C && c <= 0x1F); };
  for (size_t next = 0; !text.empty() && is_stripped(next_code_point(text, next)); next = 0) text.remove_prefix(next);
  for (size_t end = text.size(); !text.empty() && is_stripped(previous_code_point(text, end)); end = text.size()) {
    text.remove_suffix(text.size() - end);
  }
  return text;
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

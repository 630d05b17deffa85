#pragma once

#include <string>
#include <string_view>
#include <vector>

// The few Unicode operations that tokenizers need, over UTF-8. They agree with the Rust library under transformers
// code point for code point, also where ICU's Unicode version is older (tests/text compares all of Unicode).
namespace prefusion::text {

using CodePoint = char32_t;

// Position of the first byte that is not part of well-formed UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

// Reads the code point at `position` (which must be well-formed) and moves past it.
CodePoint next_code_point(std::string_view text, size_t& position);

// Reads the code point that ends before `position` and moves to its start.
CodePoint previous_code_point(std::string_view text, size_t& position);

void append_utf8(std::string& text, CodePoint code_point);

// Unicode Normalization Forms C (composed) and D (decomposed).
std::string to_nfc(std::string_view text);
std::string to_nfd(std::string_view text);

// Every code point by itself to lower case (no final sigma): what Rust's char::to_lowercase gives.
std::string to_lower(std::string_view text);

// What Python's str.lower() and str.strip() give: lower case with a final sigma at the ends of words; no white space,
// nor the separators U+001C to U+001F, at the ends.
std::string python_lower(std::string_view text);
std::string_view python_strip(std::string_view text);

enum class CharClass { kLetter, kNumber, kSpace, kOther };

// General category L*, N*, or the White_Space property.
CharClass char_class(CodePoint code_point);

// \w of Unicode regular expressions: alphabetic, mark, decimal number, connector punctuation, join control.
bool is_word_char(CodePoint code_point);

inline bool is_space(CodePoint code_point) {
  return char_class(code_point) == CharClass::kSpace;
}

}  // namespace prefusion::text

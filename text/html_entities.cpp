#include "text/html_entities.h"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "core/error.h"
#include "text/embedded_files.h"
#include "text/single_byte_encodings.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

using Entities = std::unordered_map<std::string_view, std::string>;

Entities parse_entities(std::string_view lines) {
  Entities entities;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    const size_t name_end = line.find(' ');
    std::string& text = entities[line.substr(0, name_end)];
    for (size_t begin = name_end + 1; begin < line.size();) {
      const size_t end = std::min(line.find(' ', begin), line.size());
      uint32_t code_point = 0;
      std::from_chars(line.data() + begin, line.data() + end, code_point, 16);
      append_utf8(text, code_point);
      begin = end + 1;
    }
  }
  return entities;
}

const std::string* find_entity(std::string_view name) {
  static const Entities kEntities = parse_entities(embedded_html_entities());
  const auto found = kEntities.find(name);
  return found == kEntities.end() ? nullptr : &found->second;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_hex_digit(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool is_alphanumeric(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// The character of a number, with HTML's replacements for numbers that are none.
std::string numbered_character(std::string_view digits, int base) {
  constexpr uint32_t kReplacement = 0xFFFD;
  uint32_t number = 0;
  const auto status = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (status.ec != std::errc()) number = 0xFFFFFFFF;
  if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF) number = kReplacement;
  if (number >= 0x80 && number <= 0x9F) number = windows_1252_character(static_cast<uint8_t>(number));
  const bool is_nothing = (number >= 0x1 && number <= 0x8) || number == 0xB || (number >= 0xE && number <= 0x1F) ||
                          number == 0x7F || (number >= 0xFDD0 && number <= 0xFDEF) || (number & 0xFFFE) == 0xFFFE;
  std::string text;
  if (!is_nothing) append_utf8(text, number);
  return text;
}

// Length of "#123" or "#x1F" at the start of `text`, without a semicolon; 0 where there is none.
size_t number_length(std::string_view text) {
  if (!text.starts_with('#')) return 0;
  const bool is_hex = text.size() > 1 && (text[1] == 'x' || text[1] == 'X');
  const size_t digits = is_hex ? 2 : 1;
  size_t end = digits;
  while (end < text.size() && (is_hex ? is_hex_digit(text[end]) : is_digit(text[end]))) ++end;
  return end == digits ? 0 : end;
}

// Length of the longest run that could be a name: up to 32 characters.
size_t name_length(std::string_view text) {
  constexpr std::string_view kEnds = "\t\n\f <&#;";
  size_t end = 0;
  for (int i = 0; i < 32 && end < text.size() && kEnds.find(text[end]) == std::string_view::npos; ++i) {
    next_code_point(text, end);
  }
  return end;
}

// Appends what "&" + the start of `text` stands for; the length of what was read, 0 where it is no reference.
size_t unescape_one(std::string_view text, std::string& output) {
  if (const size_t length = number_length(text)) {
    const bool is_hex = text[1] == 'x' || text[1] == 'X';
    output += numbered_character(text.substr(is_hex ? 2 : 1, length - (is_hex ? 2 : 1)), is_hex ? 16 : 10);
    return length + (length < text.size() && text[length] == ';');
  }
  const size_t name = name_length(text);
  if (name == 0) return 0;
  const size_t whole = name + (name < text.size() && text[name] == ';');
  if (const std::string* found = find_entity(text.substr(0, whole))) {
    output += *found;
    return whole;
  }
  // Names from the early days need no semicolon.
  for (size_t length = whole - 1; length > 1; --length) {
    if (const std::string* found = find_entity(text.substr(0, length))) {
      output += *found;
      output += text.substr(length, whole - length);
      return whole;
    }
  }
  return 0;
}

std::string to_upper(const std::string& text) {
  std::string upper;
  icu::StringByteSink<std::string> sink(&upper);
  UErrorCode status = U_ZERO_ERROR;
  icu::CaseMap::utf8ToUpper("", 0, text, sink, nullptr, status);
  check_run(U_SUCCESS(status), "Unicode case mapping failed: ", u_errorName(status));
  return upper;
}

// "EACUTE;" for "eacute;", unless HTML reads something else in it.
std::string capital_entity(std::string_view name) {
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  if (std::any_of(name.begin(), name.end(), is_lower)) return {};
  const std::string* found = find_entity(to_lower(name));
  const std::string reference = "&" + std::string(name);
  if (found == nullptr || unescape_html(reference) != reference) return {};
  return to_upper(*found);
}

// Length of "#?[0-9A-Za-z]{1,24};" at the start of `text`, or 0.
size_t whole_reference_length(std::string_view text) {
  const size_t begin = text.starts_with('#') ? 1 : 0;
  size_t end = begin;
  while (end < text.size() && is_alphanumeric(text[end])) ++end;
  const bool fits = end > begin && end - begin <= 24 && end < text.size() && text[end] == ';';
  return fits ? end + 1 : 0;
}

}  // namespace

std::string unescape_html(std::string_view text) {
  std::string output;
  for (size_t position = 0; position < text.size();) {
    const size_t length = text[position] == '&' ? unescape_one(text.substr(position + 1), output) : 0;
    if (length == 0) output.push_back(text[position]);
    position += 1 + length;
  }
  return output;
}

std::string unescape_whole_references(std::string_view text) {
  std::string output;
  for (size_t position = 0; position < text.size();) {
    const size_t length = text[position] == '&' ? whole_reference_length(text.substr(position + 1)) : 0;
    const std::string_view reference = text.substr(position, length + 1);
    std::string replaced(reference);
    if (length > 0 && reference[1] == '#') {
      replaced = unescape_html(reference);
      if (replaced.find(';') != std::string::npos) replaced = reference;  // only a part of it was a number
    } else if (length > 0) {
      const std::string* found = find_entity(reference.substr(1));
      const std::string capital = found ? *found : capital_entity(reference.substr(1));
      if (!capital.empty()) replaced = capital;
    }
    output += replaced;
    position += reference.size();
  }
  return output;
}

}  // namespace prefusion::text

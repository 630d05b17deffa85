#pragma once

#include <cctype>
#include <string>
#include <vector>

namespace prefusion::data::filters {

// Runs of letters and digits, in lower case; bytes above ASCII are letters and stay as they are.
inline std::vector<std::string> lower_words(const std::string& text) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_letter = byte >= 0x80 || std::isalnum(byte);
    if (is_letter && !inside) words.emplace_back();
    if (is_letter) words.back() += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
    inside = is_letter;
  }
  return words;
}

}  // namespace prefusion::data::filters

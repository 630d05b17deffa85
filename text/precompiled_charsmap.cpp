#include "text/precompiled_charsmap.h"

#include <cstring>

#include "core/error.h"
#include "text/graphemes.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

// A unit of the double array (the layout of Darts-clone).
bool has_leaf(uint32_t unit) {
  return (unit >> 8) & 1;
}
uint32_t value_of(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}
uint32_t label_of(uint32_t unit) {
  return unit & 0x800000FF;
}
uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

}  // namespace

PrecompiledCharsmap::PrecompiledCharsmap(std::string_view bytes, const std::string& where) {
  if (bytes.empty()) return;
  uint32_t trie_bytes = 0;
  check_input(bytes.size() > sizeof trie_bytes, where, ": the charsmap of the normalizer has only ", bytes.size(),
              " bytes");
  std::memcpy(&trie_bytes, bytes.data(), sizeof trie_bytes);
  bytes.remove_prefix(sizeof trie_bytes);
  check_input(trie_bytes >= sizeof(uint32_t) && trie_bytes % sizeof(uint32_t) == 0 && trie_bytes <= bytes.size(), where,
              ": the charsmap of the normalizer names ", trie_bytes, " bytes of trie and has ", bytes.size());
  units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(units_.data(), bytes.data(), trie_bytes);
  replacements_ = bytes.substr(trie_bytes);
  check_input(find_invalid_utf8(replacements_) == std::string::npos, where,
              ": the charsmap of the normalizer is not valid UTF-8");
}

const char* PrecompiledCharsmap::find(std::string_view chunk) const {
  // A damaged trie may point anywhere: such a way ends without an entry.
  uint64_t position = offset_of(units_[0]);
  for (const char byte : chunk) {
    const auto label = static_cast<unsigned char>(byte);
    if (label == 0) break;
    position ^= label;
    if (position >= units_.size() || label_of(units_[position]) != label) return nullptr;
    const bool is_entry = has_leaf(units_[position]);
    position ^= offset_of(units_[position]);
    if (!is_entry) continue;
    if (position >= units_.size() || value_of(units_[position]) >= replacements_.size()) return nullptr;
    const char* replacement = replacements_.data() + value_of(units_[position]);
    const bool begins_character = (static_cast<unsigned char>(*replacement) & 0xC0) != 0x80;
    return begins_character ? replacement : nullptr;
  }
  return nullptr;
}

std::string PrecompiledCharsmap::normalize(std::string_view text) const {
  if (units_.empty()) return std::string(text);
  constexpr size_t kLongestCluster = 5;  // bytes
  std::string normalized;
  normalized.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = grapheme_end(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    begin = end;
    const char* replacement = cluster.size() <= kLongestCluster ? find(cluster) : nullptr;
    if (replacement) {
      normalized += replacement;
      continue;
    }
    for (size_t at = 0; at < cluster.size();) {
      const size_t start = at;
      next_code_point(cluster, at);
      const std::string_view character = cluster.substr(start, at - start);
      replacement = find(character);
      normalized += replacement ? std::string_view(replacement) : character;
    }
  }
  return normalized;
}

}  // namespace prefusion::text

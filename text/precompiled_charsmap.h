#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace prefusion::text {

// The normalizer that SentencePiece compiles into its models: a double-array trie from short texts to what replaces
// them. It is applied as the Rust library under transformers does, which looks up whole grapheme clusters of up to five
// bytes, takes the shortest entry that begins one for all of it, and everything else character by character.
class PrecompiledCharsmap {
 public:
  // Without a map text stays as it is.
  PrecompiledCharsmap() = default;
  // Input error naming `where` for bytes that are no charsmap.
  PrecompiledCharsmap(std::string_view bytes, const std::string& where);

  // `text` is well-formed UTF-8, as is what comes out.
  std::string normalize(std::string_view text) const;

 private:
  // Null where no entry begins the chunk.
  const char* find(std::string_view chunk) const;

  std::vector<uint32_t> units_;  // of the trie
  std::string replacements_;     // each ended by a zero byte
};

}  // namespace prefusion::text

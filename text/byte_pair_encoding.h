#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace prefusion::text {

// Vocabulary and merges as the files give them.
struct BytePairFiles {
  std::unordered_map<std::string, int64_t> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // in order of priority
  std::string unk_token;
  std::string where;  // names the files in messages
};

// Byte-level byte-pair encoding (GPT-2's byte alphabet) with an end-of-word suffix, as CLIP uses it.
class BytePairEncoding {
 public:
  // Input error for a merge whose parts or result are not in the vocabulary, and for ids that are negative or repeated.
  explicit BytePairEncoding(BytePairFiles files);

  // Appends the tokens of one word (any bytes, not empty). Input error when a symbol is unknown and so is `unk_token`.
  void encode_word(std::string_view word, std::vector<int64_t>& tokens) const;

  // The bytes behind a token's text, its end-of-word mark replaced by a space.
  static std::string token_bytes(std::string_view token);

  // -1 when the token is not in the vocabulary.
  int64_t id_of(const std::string& token) const;
  const std::unordered_map<std::string, int64_t>& vocab() const { return vocab_; }

 private:
  struct Merge {
    int64_t rank;
    int64_t merged_id;
  };
  struct Candidate;
  const Merge* find_merge(int64_t left, int64_t right) const;
  std::vector<int64_t> symbols_of(std::string_view word) const;

  std::unordered_map<std::string, int64_t> vocab_;
  std::unordered_map<uint64_t, Merge> merges_;  // by (left id << 32 | right id)
  std::string unk_token_;
  std::string where_;
};

// The 256 characters that stand for bytes in the vocabulary, by byte value, as UTF-8.
const std::vector<std::string>& byte_symbols();

inline constexpr std::string_view kEndOfWord = "</w>";

}  // namespace prefusion::text

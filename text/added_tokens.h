#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/byte_pair_encoding.h"

namespace prefusion::text {

// A token that is found in the prompt as literal text before byte-pair encoding: <|endoftext|>, a textual-inversion
// word, the padding token.
struct AddedToken {
  std::string content;
  bool single_word = false;  // not inside a longer word
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // swallows white space after it
  bool normalized = true;  // looked for in the normalized prompt (and is itself normalized) rather than in the raw one
  bool special = false;
};

// A stretch of the prompt: a token already found, or normalized text for byte-pair encoding (id -1).
struct TextSegment {
  std::string text;
  int64_t id = -1;
};

// The tokens added to a vocabulary, and how they are found; follows the `tokenizers` library under transformers.
class AddedVocabulary {
 public:
  AddedVocabulary() = default;
  // Tokens of the vocabulary keep their id, others get the next free ones in order. Of equal contents the last one's
  // flags count.
  AddedVocabulary(const std::vector<AddedToken>& tokens, const BytePairEncoding& model, bool split_special_tokens);

  // Raw prompt (well-formed UTF-8) -> found tokens and normalized text between them.
  std::vector<TextSegment> split(std::string_view prompt) const;

  // -1 when the token is neither added nor in the model's vocabulary.
  int64_t id_of(const std::string& token, const BytePairEncoding& model) const;
  const std::unordered_map<std::string, int64_t>& ids() const { return ids_; }

 private:
  struct Pattern {
    std::string text;
    int64_t id;
    AddedToken token;
  };
  static const Pattern* longest_match(const std::vector<Pattern>& patterns, std::string_view text);
  std::vector<TextSegment> find(const std::vector<Pattern>& patterns, std::string_view text) const;

  std::vector<Pattern> raw_patterns_;
  std::vector<Pattern> normalized_patterns_;
  std::unordered_map<std::string, int64_t> ids_;
  bool split_special_tokens_ = false;
};

}  // namespace prefusion::text

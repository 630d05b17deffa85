#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

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

using Vocabulary = std::unordered_map<std::string, int64_t>;  // text of a token -> id

// The tokens added to a vocabulary, and how they are found; follows the `tokenizers` library under transformers.
class AddedVocabulary {
 public:
  using Normalizer = std::function<std::string(std::string_view)>;

  AddedVocabulary() = default;
  // Tokens of the model's vocabulary keep their id, others get the next free ones in order, from `num_model_ids` on
  // (-1: as many as the vocabulary has tokens). Of equal contents the last one's flags count.
  AddedVocabulary(const std::vector<AddedToken>& tokens, const Vocabulary& vocab, Normalizer normalize,
                  bool split_special_tokens, int64_t num_model_ids = -1);

  // Raw prompt (well-formed UTF-8) -> found tokens and normalized text between them.
  std::vector<TextSegment> split(std::string_view prompt) const;

  // -1 when the token is neither added nor in the model's vocabulary.
  int64_t id_of(const std::string& token, const Vocabulary& vocab) const;
  const Vocabulary& ids() const { return ids_; }

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
  Vocabulary ids_;
  Normalizer normalize_;
  bool split_special_tokens_ = false;
};

}  // namespace prefusion::text

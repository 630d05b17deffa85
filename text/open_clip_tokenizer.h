#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_pair_encoding.h"

namespace prefusion::text {

// The tokenizer of open_clip and OpenAI's CLIP (SimpleTokenizer): CLIP's byte pairs behind another clean-up of the
// prompt than transformers has. Immutable after loading; safe to use from several threads.
class OpenClipTokenizer {
 public:
  // Reads the vocabulary at `place`: a file bpe_simple_vocab_16e6.txt.gz, or a folder with that file, vocab.json and
  // merges.txt, or tokenizer.json. Where a folder has none the one built into the program serves, unless `is_required`.
  // Input error when there is none at all.
  static OpenClipTokenizer load(const std::filesystem::path& place, bool is_required = false);

  explicit OpenClipTokenizer(BytePairFiles files);

  // The prompt's own tokens: neither start nor end token, not truncated. Input error naming the byte offset where the
  // prompt is not UTF-8.
  std::vector<int64_t> encode(std::string_view prompt) const;

  int64_t start_id() const { return start_id_; }
  int64_t end_id() const { return end_id_; }

 private:
  int64_t special_id(std::initializer_list<const char*> spellings) const;

  std::string where_;
  BytePairEncoding model_;
  int64_t start_id_;
  int64_t end_id_;
};

// CLIP's vocabulary from the text of bpe_simple_vocab_16e6.txt: the ids follow from the order of the merges. Input
// error for a line that is no pair.
BytePairFiles read_merge_list(std::string_view lines, const std::string& where);

// What open_clip makes of a prompt before it looks for words: fix_text, character references twice, single blanks,
// lower case.
std::string clean_open_clip(std::string_view prompt);

}  // namespace prefusion::text

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/t5_tokenizer_files.h"
#include "text/unigram_model.h"

namespace prefusion::text {

// Ids and mask of prompts: int64 [B, L] on the CPU; the mask is 1 for tokens and 0 for padding.
struct T5Tokens {
  at::Tensor input_ids;
  at::Tensor attention_mask;
};

// T5's tokenizer, token for token what transformers 5's T5Tokenizer (also under its old name T5TokenizerFast) makes of
// the same folder: normalized text is cut at white space, every word gets a leading "▁" (U+2581) and is cut into pieces
// of a unigram model. Immutable after loading; safe to use from several threads.
class T5Tokenizer {
 public:
  // Reads a tokenizer folder of either layout (t5_tokenizer_files.h). Input error for a missing, malformed or
  // unsupported file.
  static T5Tokenizer load(const std::filesystem::path& folder);

  explicit T5Tokenizer(T5TokenizerFiles files);

  // The prompt's own tokens: no end token, not truncated. Input error naming the byte offset where the prompt is not
  // UTF-8.
  std::vector<int64_t> encode(std::string_view prompt) const;

  // Tokens and the end token, truncated and padded to `max_length` (at least 1), as a call with
  // padding="max_length", max_length=max_length, truncation=True gives them.
  T5Tokens tokenize(const std::vector<std::string>& prompts, int64_t max_length) const;

  // The tokens of encode() that tokenize() cuts off.
  std::vector<int64_t> cut_off(const std::vector<int64_t>& tokens, int64_t max_length) const;

  // Readable text of tokens, for messages.
  std::string decode(const std::vector<int64_t>& tokens) const;

  // 32 hexadecimal digits over everything encode() and tokenize() depend on.
  const std::string& content_key() const { return content_key_; }

  int64_t eos_token_id() const { return eos_token_id_; }
  int64_t pad_token_id() const { return pad_token_id_; }
  // One more than the highest id that any text can get but by naming a token added to the vocabulary.
  int64_t num_ids() const { return num_ids_; }

 private:
  static std::string content_key_of(const T5TokenizerFiles& files);
  int64_t require_id(const std::string& token, const char* role) const;
  void encode_words(std::string_view text, std::vector<int64_t>& tokens) const;

  UnigramModel model_;
  AddedVocabulary added_;
  std::vector<std::string> texts_;  // by id
  std::string where_;
  std::string content_key_;
  int64_t eos_token_id_ = 0;
  int64_t pad_token_id_ = 0;
  int64_t num_ids_ = 0;
  bool pads_left_ = false;
  bool truncates_left_ = false;
};

}  // namespace prefusion::text

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_pair_encoding.h"
#include "text/clip_tokenizer_files.h"

namespace prefusion::text {

// CLIP's byte-pair tokenizer, token for token what transformers 5's CLIPTokenizer makes of the same folder.
// Immutable after loading; safe to use from several threads.
class ClipTokenizer {
 public:
  // Length of CLIP's text model, for folders that give none.
  static constexpr int64_t kDefaultMaxLength = 77;

  // Reads a tokenizer folder of either layout (clip_tokenizer_files.h). `max_length_if_unset` stands in where it names
  // no model_max_length. Input error for a missing, malformed or unsupported file.
  static ClipTokenizer load(const std::filesystem::path& folder, int64_t max_length_if_unset = kDefaultMaxLength);

  explicit ClipTokenizer(ClipTokenizerFiles files, int64_t max_length_if_unset = kDefaultMaxLength);

  // The prompt's own tokens: neither begin nor end token, not truncated. Input error naming the byte offset where the
  // prompt is not UTF-8.
  std::vector<int64_t> encode(std::string_view prompt) const;

  // begin + tokens + end, padded to model_max_length, for tokens that fit; and where the begin token stands in it.
  std::vector<int64_t> frame(const std::vector<int64_t>& tokens) const;
  int64_t frame_start(size_t num_tokens) const;

  // begin + tokens + end, truncated and padded to model_max_length: what a diffusion pipeline feeds its text encoder.
  std::vector<int64_t> tokenize(std::string_view prompt) const;

  // The same for a batch: int64 [B, model_max_length] on the CPU.
  at::Tensor tokenize_batch(const std::vector<std::string>& prompts) const;

  // Which of these tokens are not padding: int64 [B, model_max_length], 1 or 0, on the CPU.
  at::Tensor attention_mask_batch(const std::vector<std::string>& prompts) const;

  // Readable text of tokens, for messages.
  std::string decode(const std::vector<int64_t>& tokens) const;

  // The tokens of encode() that tokenize() cuts off.
  std::vector<int64_t> cut_off(const std::vector<int64_t>& tokens) const;

  // 32 hexadecimal digits over everything tokenize() depends on.
  const std::string& content_key() const { return content_key_; }

  int64_t bos_token_id() const { return bos_token_id_; }
  int64_t eos_token_id() const { return eos_token_id_; }
  int64_t pad_token_id() const { return pad_token_id_; }
  int64_t model_max_length() const { return model_max_length_; }
  bool truncates_left() const { return truncates_left_; }
  // One more than the highest id a prompt can get: what the text model's embedding must hold.
  int64_t num_ids() const { return num_ids_; }

 private:
  static std::string content_key_of(const ClipTokenizerFiles& files, int64_t max_length);
  int64_t require_id(const std::string& token, const char* role) const;

  BytePairEncoding model_;
  AddedVocabulary added_;
  std::unordered_map<int64_t, std::string> texts_;  // id -> token
  std::string where_;
  std::string content_key_;
  int64_t bos_token_id_ = 0;
  int64_t eos_token_id_ = 0;
  int64_t pad_token_id_ = 0;
  int64_t model_max_length_ = kDefaultMaxLength;
  int64_t num_ids_ = 0;
  bool pads_left_ = false;
  bool truncates_left_ = false;
};

}  // namespace prefusion::text

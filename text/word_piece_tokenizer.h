#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bert_pre_tokenizer.h"

namespace prefusion::text {

// What a BERT tokenizer folder says, whichever layout it has.
struct WordPieceFiles {
  Vocabulary vocab;
  std::vector<AddedToken> added_tokens;  // in the order they get ids
  std::string unk_token = "[UNK]";
  std::string cls_token = "[CLS]";
  std::string sep_token = "[SEP]";
  std::string pad_token = "[PAD]";
  BertNormalization normalization;
  bool split_special_tokens = false;
  std::string where;  // names the files in messages
};

// Reads tokenizer.json (it wins, as in transformers) or vocab.txt, and tokenizer_config.json, special_tokens_map.json,
// added_tokens.json with the precedence of transformers 5. Like BertTokenizer there, only vocabulary and added tokens
// of tokenizer.json count; what its other parts say must agree. Input error naming file and key for what is missing,
// malformed or not BERT's.
WordPieceFiles read_word_piece_files(const std::filesystem::path& folder);

// BERT's tokenizer, token for token what transformers 5's BertTokenizer makes of the same folder: words as in
// bert_pre_tokenizer.h, each cut greedily into the longest pieces of the vocabulary. Immutable after loading; safe to
// use from several threads.
class WordPieceTokenizer {
 public:
  // Special tokens that are not in the files can be added, as add_special_tokens() does.
  static WordPieceTokenizer load(const std::filesystem::path& folder,
                                 const std::vector<std::string>& extra_special_tokens = {});

  explicit WordPieceTokenizer(WordPieceFiles files);

  // The text's own tokens: no begin and end, not truncated. Input error naming the byte offset where it is not UTF-8.
  std::vector<int64_t> encode(std::string_view text) const;

  int64_t cls_token_id() const { return cls_token_id_; }  // stands before a text
  int64_t sep_token_id() const { return sep_token_id_; }  // stands behind it
  int64_t pad_token_id() const { return pad_token_id_; }
  // One more than the highest id a text can get: what a model's embedding must hold.
  int64_t num_ids() const { return num_ids_; }

 private:
  int64_t require_id(const std::string& token, const char* role) const;
  void encode_word(std::string_view word, std::vector<int64_t>& tokens) const;

  Vocabulary vocab_;
  AddedVocabulary added_;
  std::string where_;
  int64_t unk_token_id_ = 0;
  int64_t cls_token_id_ = 0;
  int64_t sep_token_id_ = 0;
  int64_t pad_token_id_ = 0;
  int64_t num_ids_ = 0;
};

}  // namespace prefusion::text

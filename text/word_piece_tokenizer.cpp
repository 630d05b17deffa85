#include "text/word_piece_tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

constexpr size_t kLongestWord = 100;  // characters; a longer word is unknown as a whole

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

WordPieceTokenizer WordPieceTokenizer::load(const std::filesystem::path& folder,
                                            const std::vector<std::string>& extra_special_tokens) {
  WordPieceFiles files = read_word_piece_files(folder);
  for (const std::string& extra : extra_special_tokens) {
    const bool is_new = std::none_of(files.added_tokens.begin(), files.added_tokens.end(),
                                     [&](const AddedToken& token) { return token.content == extra; });
    if (is_new) files.added_tokens.push_back({.content = extra, .normalized = false, .special = true});
  }
  return WordPieceTokenizer(std::move(files));
}

WordPieceTokenizer::WordPieceTokenizer(WordPieceFiles files)
    : vocab_(std::move(files.vocab)),
      added_(
          files.added_tokens, vocab_,
          [options = files.normalization](std::string_view text) { return normalize_bert(text, options); },
          files.split_special_tokens),
      where_(files.where) {
  check_input(vocab_.contains(files.unk_token), where_, ": the unknown token '", files.unk_token,
              "' is not in the vocabulary");
  unk_token_id_ = vocab_.at(files.unk_token);
  cls_token_id_ = require_id(files.cls_token, "begin");
  sep_token_id_ = require_id(files.sep_token, "end");
  pad_token_id_ = require_id(files.pad_token, "padding");
  for (const Vocabulary* ids : {static_cast<const Vocabulary*>(&vocab_), &added_.ids()}) {
    for (const auto& [token, id] : *ids) num_ids_ = std::max(num_ids_, id + 1);
  }
}

int64_t WordPieceTokenizer::require_id(const std::string& token, const char* role) const {
  const int64_t id = added_.id_of(token, vocab_);
  check_input(id >= 0, where_, ": the ", role, " token '", token, "' is not in the vocabulary");
  return id;
}

void WordPieceTokenizer::encode_word(std::string_view word, std::vector<int64_t>& tokens) const {
  const size_t num_before = tokens.size();
  const auto give_up = [&] {
    tokens.resize(num_before);
    tokens.push_back(unk_token_id_);
  };
  if (count_characters(word) > kLongestWord) return give_up();
  for (size_t begin = 0; begin < word.size();) {
    size_t end = word.size();
    auto found = vocab_.end();
    for (; end > begin; previous_code_point(word, end)) {
      std::string piece = begin > 0 ? "##" : "";
      piece += word.substr(begin, end - begin);
      if (found = vocab_.find(piece); found != vocab_.end()) break;
    }
    if (found == vocab_.end()) return give_up();
    tokens.push_back(found->second);
    begin = end;
  }
}

std::vector<int64_t> WordPieceTokenizer::encode(std::string_view text) const {
  const size_t invalid = find_invalid_utf8(text);
  check_input(invalid == std::string_view::npos, "prompt is not valid UTF-8: byte ", invalid,
              " does not begin a character");
  std::vector<int64_t> tokens;
  for (const TextSegment& segment : added_.split(text)) {
    if (segment.id >= 0) {
      tokens.push_back(segment.id);
      continue;
    }
    for (const std::string_view word : split_bert_words(segment.text)) encode_word(word, tokens);
  }
  return tokens;
}

}  // namespace prefusion::text

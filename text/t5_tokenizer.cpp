#include "text/t5_tokenizer.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/content_hash.h"
#include "core/error.h"
#include "text/precompiled_charsmap.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

constexpr int64_t kUnknownId = 2;                        // whatever the files say, as in transformers
constexpr std::string_view kWordStart = "\xE2\x96\x81";  // U+2581

}  // namespace

T5Tokenizer T5Tokenizer::load(const std::filesystem::path& folder) {
  return T5Tokenizer(read_t5_tokenizer_files(folder));
}

T5Tokenizer::T5Tokenizer(T5TokenizerFiles files)
    : model_(files.pieces, kUnknownId, files.where),
      added_(
          files.added_tokens, model_.vocab(),
          [charsmap = PrecompiledCharsmap(files.precompiled_charsmap, files.where)](std::string_view text) {
            return charsmap.normalize(text);
          },
          files.split_special_tokens, static_cast<int64_t>(files.pieces.size())),
      where_(files.where),
      content_key_(content_key_of(files)),
      pads_left_(files.pads_left),
      truncates_left_(files.truncates_left) {
  eos_token_id_ = require_id(files.eos_token, "end");
  pad_token_id_ = require_id(files.pad_token, "padding");
  num_ids_ = std::max(eos_token_id_, pad_token_id_) + 1;
  for (const auto& [text, score] : files.pieces) {
    texts_.push_back(text);
    if (!added_.ids().contains(text)) num_ids_ = std::max(num_ids_, static_cast<int64_t>(texts_.size()));
  }
  for (const auto& [text, id] : added_.ids()) {
    if (id >= static_cast<int64_t>(texts_.size())) texts_.resize(static_cast<size_t>(id) + 1);
    texts_[static_cast<size_t>(id)] = text;
  }
}

std::string T5Tokenizer::content_key_of(const T5TokenizerFiles& files) {
  ContentHasher hash;
  hash.add("T5 tokenizer, version 1").add(files.precompiled_charsmap);
  for (const auto& [text, score] : files.pieces) {
    hash.add(text).add(std::string_view(reinterpret_cast<const char*>(&score), sizeof score));
  }
  for (const AddedToken& token : files.added_tokens) {
    hash.add(token.content);
    hash.add(concat(token.single_word, token.lstrip, token.rstrip, token.normalized, token.special));
  }
  hash.add(files.eos_token).add(files.pad_token);
  hash.add(concat(files.pads_left, files.truncates_left, files.split_special_tokens));
  return hash.finish().hex();
}

int64_t T5Tokenizer::require_id(const std::string& token, const char* role) const {
  const int64_t id = added_.id_of(token, model_.vocab());
  check_input(id >= 0, where_, ": the ", role, " token '", token, "' is not in the vocabulary");
  return id;
}

// Cuts normalized text at white space, puts a "▁" before every word that has none, and cuts before every further one.
void T5Tokenizer::encode_words(std::string_view text, std::vector<int64_t>& tokens) const {
  std::string word;
  const auto finish_word = [&] {
    if (!word.empty() && !word.starts_with(kWordStart)) word.insert(0, kWordStart);
    for (size_t begin = 0; begin < word.size();) {
      const size_t end = std::min(word.find(kWordStart, begin + kWordStart.size()), word.size());
      model_.encode_word(std::string_view(word).substr(begin, end - begin), tokens);
      begin = end;
    }
    word.clear();
  };
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    if (is_space(next_code_point(text, position))) {
      finish_word();
    } else {
      word += text.substr(start, position - start);
    }
  }
  finish_word();
}

std::vector<int64_t> T5Tokenizer::encode(std::string_view prompt) const {
  const size_t invalid = find_invalid_utf8(prompt);
  check_input(invalid == std::string_view::npos, "prompt is not valid UTF-8: byte ", invalid,
              " does not begin a character");
  std::vector<int64_t> tokens;
  for (const TextSegment& segment : added_.split(prompt)) {
    if (segment.id >= 0) {
      tokens.push_back(segment.id);
    } else {
      encode_words(segment.text, tokens);
    }
  }
  return tokens;
}

std::vector<int64_t> T5Tokenizer::cut_off(const std::vector<int64_t>& tokens, int64_t max_length) const {
  const auto room = static_cast<size_t>(max_length - 1);  // the end token always stays
  if (tokens.size() <= room) return {};
  if (truncates_left_) return {tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(room)};
  return {tokens.begin() + static_cast<std::ptrdiff_t>(room), tokens.end()};
}

T5Tokens T5Tokenizer::tokenize(const std::vector<std::string>& prompts, int64_t max_length) const {
  check_usage(max_length >= 1, "T5 tokenizer: expected a max_length of at least 1, found ", max_length);
  const auto num_prompts = static_cast<int64_t>(prompts.size());
  const T5Tokens batch{.input_ids = at::full({num_prompts, max_length}, pad_token_id_, at::kLong),
                       .attention_mask = at::zeros({num_prompts, max_length}, at::kLong)};
  int64_t* ids = batch.input_ids.data_ptr<int64_t>();
  int64_t* mask = batch.attention_mask.data_ptr<int64_t>();
  for (int64_t row = 0; row < num_prompts; ++row, ids += max_length, mask += max_length) {
    std::vector<int64_t> tokens = encode(prompts[static_cast<size_t>(row)]);
    const auto num_cut = static_cast<std::ptrdiff_t>(cut_off(tokens, max_length).size());
    tokens.erase(truncates_left_ ? tokens.begin() : tokens.end() - num_cut,
                 truncates_left_ ? tokens.begin() + num_cut : tokens.end());
    tokens.push_back(eos_token_id_);
    const auto count = static_cast<int64_t>(tokens.size());
    const int64_t start = pads_left_ ? max_length - count : 0;
    std::copy(tokens.begin(), tokens.end(), ids + start);
    std::fill_n(mask + start, count, 1);
  }
  return batch;
}

std::string T5Tokenizer::decode(const std::vector<int64_t>& tokens) const {
  std::string text;
  for (const int64_t id : tokens) {
    std::string_view piece = texts_.at(static_cast<size_t>(id));
    if (piece.starts_with(kWordStart)) {
      text += ' ';
      piece.remove_prefix(kWordStart.size());
    }
    text += piece;
  }
  return text.starts_with(' ') ? text.substr(1) : text;
}

}  // namespace prefusion::text

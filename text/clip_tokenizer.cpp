#include "text/clip_tokenizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "core/content_hash.h"
#include "core/error.h"
#include "text/clip_pre_tokenizer.h"
#include "text/unicode.h"

namespace prefusion::text {

ClipTokenizer ClipTokenizer::load(const std::filesystem::path& folder, int64_t max_length_if_unset) {
  return ClipTokenizer(read_clip_tokenizer_files(folder), max_length_if_unset);
}

ClipTokenizer::ClipTokenizer(ClipTokenizerFiles files, int64_t max_length_if_unset)
    : model_(files.model),
      added_(files.added_tokens, model_.vocab(), normalize_clip, files.split_special_tokens),
      where_(files.model.where),
      content_key_(content_key_of(files, files.model_max_length.value_or(max_length_if_unset))),
      model_max_length_(files.model_max_length.value_or(max_length_if_unset)),
      pads_left_(files.pads_left),
      truncates_left_(files.truncates_left) {
  bos_token_id_ = require_id(files.bos_token, "begin");
  eos_token_id_ = require_id(files.eos_token, "end");
  pad_token_id_ = require_id(files.pad_token, "padding");
  for (const auto* ids : {&model_.vocab(), &added_.ids()}) {
    for (const auto& [token, id] : *ids) {
      texts_.emplace(id, token);
      num_ids_ = std::max(num_ids_, id + 1);
    }
  }
}

std::string ClipTokenizer::content_key_of(const ClipTokenizerFiles& files, int64_t max_length) {
  ContentHasher hash;
  const std::map<std::string, int64_t> vocab(files.model.vocab.begin(), files.model.vocab.end());
  for (const auto& [token, id] : vocab) hash.add(token).add(static_cast<uint64_t>(id));
  for (const auto& [left, right] : files.model.merges) hash.add(left).add(right);
  for (const AddedToken& token : files.added_tokens) {
    hash.add(token.content);
    hash.add(concat(token.single_word, token.lstrip, token.rstrip, token.normalized, token.special));
  }
  hash.add(files.model.unk_token).add(files.bos_token).add(files.eos_token).add(files.pad_token);
  hash.add(concat(max_length, ' ', files.pads_left, files.truncates_left, files.split_special_tokens));
  return hash.finish().hex();
}

int64_t ClipTokenizer::require_id(const std::string& token, const char* role) const {
  const int64_t id = added_.id_of(token, model_.vocab());
  check_input(id >= 0, where_, ": the ", role, " token '", token, "' is not in the vocabulary");
  return id;
}

std::vector<int64_t> ClipTokenizer::encode(std::string_view prompt) const {
  const size_t invalid = find_invalid_utf8(prompt);
  check_input(invalid == std::string_view::npos, "prompt is not valid UTF-8: byte ", invalid,
              " does not begin a character");
  std::vector<int64_t> tokens;
  for (const TextSegment& segment : added_.split(prompt)) {
    if (segment.id >= 0) {
      tokens.push_back(segment.id);
      continue;
    }
    for (const std::string_view word : split_clip_words(segment.text)) model_.encode_word(word, tokens);
  }
  return tokens;
}

std::vector<int64_t> ClipTokenizer::cut_off(const std::vector<int64_t>& tokens) const {
  const auto room = static_cast<size_t>(model_max_length_ - 2);  // begin and end token always stay
  if (tokens.size() <= room) return {};
  if (truncates_left_) return {tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(room)};
  return {tokens.begin() + static_cast<std::ptrdiff_t>(room), tokens.end()};
}

std::vector<int64_t> ClipTokenizer::frame(const std::vector<int64_t>& tokens) const {
  std::vector<int64_t> ids;
  ids.reserve(static_cast<size_t>(model_max_length_));
  ids.push_back(bos_token_id_);
  ids.insert(ids.end(), tokens.begin(), tokens.end());
  ids.push_back(eos_token_id_);
  const size_t num_padding = static_cast<size_t>(model_max_length_) - ids.size();
  ids.insert(pads_left_ ? ids.begin() : ids.end(), num_padding, pad_token_id_);
  return ids;
}

int64_t ClipTokenizer::frame_start(size_t num_tokens) const {
  return pads_left_ ? model_max_length_ - static_cast<int64_t>(num_tokens) - 2 : 0;
}

std::vector<int64_t> ClipTokenizer::tokenize(std::string_view prompt) const {
  const std::vector<int64_t> tokens = encode(prompt);
  const auto num_cut = static_cast<std::ptrdiff_t>(cut_off(tokens).size());
  return frame({tokens.begin() + (truncates_left_ ? num_cut : 0), tokens.end() - (truncates_left_ ? 0 : num_cut)});
}

at::Tensor ClipTokenizer::tokenize_batch(const std::vector<std::string>& prompts) const {
  at::Tensor batch = at::empty({static_cast<int64_t>(prompts.size()), model_max_length_}, at::kLong);
  int64_t* row = batch.data_ptr<int64_t>();
  for (const std::string& prompt : prompts) row = std::ranges::copy(tokenize(prompt), row).out;
  return batch;
}

at::Tensor ClipTokenizer::attention_mask_batch(const std::vector<std::string>& prompts) const {
  at::Tensor mask = at::zeros({static_cast<int64_t>(prompts.size()), model_max_length_}, at::kLong);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto count = std::min(static_cast<int64_t>(encode(prompts[i]).size()) + 2, model_max_length_);
    const int64_t start = pads_left_ ? model_max_length_ - count : 0;
    mask.select(0, static_cast<int64_t>(i)).narrow(0, start, count).fill_(1);
  }
  return mask;
}

std::string ClipTokenizer::decode(const std::vector<int64_t>& tokens) const {
  std::string text;
  for (const int64_t id : tokens) {
    const auto found = texts_.find(id);
    if (found == texts_.end()) continue;
    text += added_.ids().contains(found->second) ? found->second + " " : BytePairEncoding::token_bytes(found->second);
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace prefusion::text

#include "text/added_tokens.h"

#include <algorithm>
#include <map>

#include "text/unicode.h"

namespace prefusion::text {
namespace {

// A token that must stand alone does not when a word character touches it.
bool touches_word(std::string_view text, size_t begin, size_t end) {
  size_t before = begin;
  if (begin > 0 && is_word_char(previous_code_point(text, before))) return true;
  size_t after = end;
  return end < text.size() && is_word_char(next_code_point(text, after));
}

size_t skip_spaces_left(std::string_view text, size_t begin) {
  while (begin > 0) {
    size_t start = begin;
    if (!is_space(previous_code_point(text, start))) break;
    begin = start;
  }
  return begin;
}

size_t skip_spaces_right(std::string_view text, size_t end) {
  while (end < text.size()) {
    size_t next = end;
    if (!is_space(next_code_point(text, next))) break;
    end = next;
  }
  return end;
}

int64_t id_in(const Vocabulary& vocab, const std::string& token) {
  const auto found = vocab.find(token);
  return found == vocab.end() ? -1 : found->second;
}

}  // namespace

AddedVocabulary::AddedVocabulary(const std::vector<AddedToken>& tokens, const Vocabulary& vocab, Normalizer normalize,
                                 bool split_special_tokens, int64_t num_model_ids)
    : normalize_(std::move(normalize)), split_special_tokens_(split_special_tokens) {
  const int64_t vocab_size = num_model_ids < 0 ? static_cast<int64_t>(vocab.size()) : num_model_ids;
  int64_t highest_id = -1;
  std::map<int64_t, const AddedToken*> by_id;
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    if (!ids_.contains(token.content)) {
      int64_t id = id_in(vocab, token.content);
      if (id < 0) id = std::max(vocab_size, highest_id + 1);
      highest_id = std::max(highest_id, id);
      ids_.emplace(token.content, id);
    }
    by_id[ids_.at(token.content)] = &token;
  }
  for (const auto& [id, token] : by_id) {
    if (token->normalized) {
      normalized_patterns_.push_back({normalize_(token->content), id, *token});
    } else {
      raw_patterns_.push_back({token->content, id, *token});
    }
  }
}

int64_t AddedVocabulary::id_of(const std::string& token, const Vocabulary& vocab) const {
  const int64_t id = id_in(ids_, token);
  return id < 0 ? id_in(vocab, token) : id;
}

const AddedVocabulary::Pattern* AddedVocabulary::longest_match(const std::vector<Pattern>& patterns,
                                                               std::string_view text) {
  const Pattern* longest = nullptr;
  for (const Pattern& pattern : patterns) {
    const bool is_longer = !longest || pattern.text.size() > longest->text.size();
    if (is_longer && !pattern.text.empty() && text.starts_with(pattern.text)) longest = &pattern;
  }
  return longest;
}

std::vector<TextSegment> AddedVocabulary::find(const std::vector<Pattern>& patterns, std::string_view text) const {
  std::vector<TextSegment> segments;
  size_t taken = 0;  // everything before belongs to a segment already
  const auto add_text = [&](size_t end) {
    if (taken < end) segments.push_back({std::string(text.substr(taken, end - taken)), -1});
  };
  for (size_t position = 0; position < text.size();) {
    const Pattern* pattern = longest_match(patterns, text.substr(position));
    if (!pattern) {
      ++position;
      continue;
    }
    size_t begin = position;
    size_t end = begin + pattern->text.size();
    position = end;
    if (split_special_tokens_ && pattern->token.special) continue;
    if (pattern->token.single_word && touches_word(text, begin, end)) continue;
    if (pattern->token.lstrip) begin = std::max(skip_spaces_left(text, begin), taken);
    if (pattern->token.rstrip) end = skip_spaces_right(text, end);
    add_text(begin);
    segments.push_back({std::string(), pattern->id});
    taken = end;
  }
  add_text(text.size());
  return segments;
}

std::vector<TextSegment> AddedVocabulary::split(std::string_view prompt) const {
  std::vector<TextSegment> segments;
  for (TextSegment& raw : find(raw_patterns_, prompt)) {
    if (raw.id >= 0) {
      segments.push_back(std::move(raw));
      continue;
    }
    for (TextSegment& part : find(normalized_patterns_, normalize_(raw.text))) segments.push_back(std::move(part));
  }
  return segments;
}

}  // namespace prefusion::text

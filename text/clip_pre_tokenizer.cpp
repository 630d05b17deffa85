#include "text/clip_pre_tokenizer.h"

#include <array>

#include "text/unicode.h"

namespace prefusion::text {
namespace {

constexpr std::array<std::string_view, 2> kSpecialTexts = {"<|startoftext|>", "<|endoftext|>"};
constexpr std::array<std::string_view, 7> kContractions = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};

template <size_t N>
size_t matched_length(const std::array<std::string_view, N>& literals, std::string_view text) {
  for (const std::string_view literal : literals) {
    if (text.starts_with(literal)) return literal.size();
  }
  return 0;
}

// Length of the run of `wanted` characters at the start of `text`.
size_t run_length(std::string_view text, CharClass wanted) {
  size_t end = 0;
  while (end < text.size()) {
    size_t next = end;
    if (char_class(next_code_point(text, next)) != wanted) break;
    end = next;
  }
  return end;
}

// Length of the match of the first expression at the start of `text`, or 0 for white space.
size_t match_length(std::string_view text, bool takes_specials) {
  if (takes_specials) {
    if (const size_t length = matched_length(kSpecialTexts, text)) return length;
  }
  if (const size_t length = matched_length(kContractions, text)) return length;
  size_t first = 0;
  switch (char_class(next_code_point(text, first))) {
    case CharClass::kLetter: return run_length(text, CharClass::kLetter);
    case CharClass::kNumber: return first;
    case CharClass::kOther: return run_length(text, CharClass::kOther);
    case CharClass::kSpace: break;
  }
  return 0;
}

void split(std::string_view text, bool takes_specials, std::vector<std::string_view>& words) {
  size_t position = 0;
  while (position < text.size()) {
    const std::string_view rest = text.substr(position);
    const size_t length = match_length(rest, takes_specials);
    if (length == 0) {
      next_code_point(text, position);
      continue;
    }
    const std::string_view piece = rest.substr(0, length);
    // Only a literal special text mixes classes, so only there does GPT-2's expression cut further.
    if (takes_specials && matched_length(kSpecialTexts, piece) != 0) {
      split(piece, /*takes_specials=*/false, words);
    } else {
      words.push_back(piece);
    }
    position += length;
  }
}

}  // namespace

std::string normalize_clip(std::string_view text) {
  const std::string composed = to_nfc(text);
  std::string collapsed;
  collapsed.reserve(composed.size());
  bool after_space = false;
  for (size_t position = 0; position < composed.size();) {
    const size_t start = position;
    const bool space = is_space(next_code_point(composed, position));
    if (!space) {
      collapsed.append(composed, start, position - start);
    } else if (!after_space) {
      collapsed.push_back(' ');
    }
    after_space = space;
  }
  return to_lower(collapsed);
}

std::vector<std::string_view> split_clip_words(std::string_view text) {
  std::vector<std::string_view> words;
  split(text, /*takes_specials=*/true, words);
  return words;
}

}  // namespace prefusion::text

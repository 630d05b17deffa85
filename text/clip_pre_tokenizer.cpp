#include "text/clip_pre_tokenizer.h"

#include <algorithm>
#include <array>

#include "text/unicode.h"

namespace prefusion::text {
namespace {

constexpr std::array<std::string_view, 2> kSpecialTexts = {"<|startoftext|>", "<|endoftext|>"};
constexpr std::array<std::string_view, 2> kOpenClipSpecials = {"<start_of_text>", "<end_of_text>"};
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

namespace {

// Length of the first literal at the start of `text` where letters compare without case, or 0. The text is in lower
// case already, but for the long s, which is an s then.
template <size_t N>
size_t folded_length(const std::array<std::string_view, N>& literals, std::string_view text) {
  constexpr std::string_view kLongS = "\u017F";
  for (const std::string_view literal : literals) {
    size_t end = 0;
    const bool matches = std::all_of(literal.begin(), literal.end(), [&](char c) {
      const std::string_view rest = text.substr(end);
      const bool is_long = c == 's' && rest.starts_with(kLongS);
      end += is_long ? kLongS.size() : 1;
      return is_long || rest.starts_with(c);
    });
    if (matches) return end;
  }
  return 0;
}

void split_open_clip(std::string_view text, std::vector<std::string_view>& words) {
  while (!text.empty()) {
    size_t length = folded_length(kOpenClipSpecials, text);
    if (length == 0) length = folded_length(kContractions, text);
    if (length == 0) length = match_length(text, /*takes_specials=*/false);
    if (length > 0) {
      words.push_back(text.substr(0, length));
    } else {
      next_code_point(text, length);  // white space
    }
    text.remove_prefix(length);
  }
}

}  // namespace

std::vector<std::string_view> split_open_clip_words(std::string_view text) {
  // Without case this mark is the letter iota, so that it is neither a letter nor what is no letter: it falls out.
  constexpr std::string_view kIotaBelow = "\u0345";
  std::vector<std::string_view> words;
  for (size_t cut = text.find(kIotaBelow); cut != std::string_view::npos; cut = text.find(kIotaBelow)) {
    split_open_clip(text.substr(0, cut), words);
    text.remove_prefix(cut + kIotaBelow.size());
  }
  split_open_clip(text, words);
  return words;
}

}  // namespace prefusion::text

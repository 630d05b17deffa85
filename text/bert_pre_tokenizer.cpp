#include "text/bert_pre_tokenizer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <array>

#include "text/unicode.h"
#include "text/unicode_tables.h"

namespace prefusion::text {
namespace {

// The categories the reference knows are those of Unicode 8: what is younger is unassigned there, and these few have
// changed since (tests/text compares all of Unicode).
constexpr int kKnownUnicode = 8;
constexpr std::array<CodePoint, 4> kMarksSince = {0x1885, 0x1886, 0xA9BD, 0x111C9};  // nonspacing, and not then
constexpr CodePoint kMarkThen = 0x1734;                                              // nonspacing, and not now
constexpr std::array<CodePoint, 2> kPunctuationThen = {0x166D, 0x111C9};             // and not now

template <size_t N>
bool is_one_of(const std::array<CodePoint, N>& list, CodePoint code_point) {
  return std::find(list.begin(), list.end(), code_point) != list.end();
}

// A bit of ICU's U_GC_..._MASK.
uint32_t category_then(CodePoint code_point) {
  const auto icu_char = static_cast<UChar32>(code_point);
  UVersionInfo age;
  u_charAge(icu_char, age);
  return age[0] > kKnownUnicode ? U_GC_CN_MASK : U_GET_GC_MASK(icu_char);
}

bool is_nonspacing_mark(CodePoint code_point) {
  if (code_point == kMarkThen) return true;
  return (category_then(code_point) & U_GC_MN_MASK) && !is_one_of(kMarksSince, code_point);
}

bool is_punctuation(CodePoint code_point) {
  const uint32_t ascii = code_point < 0x80 ? U_GET_GC_MASK(static_cast<UChar32>(code_point)) : 0;
  return (ascii & U_GC_S_MASK) || (category_then(code_point) & U_GC_P_MASK) || is_one_of(kPunctuationThen, code_point);
}

bool is_dropped(CodePoint code_point) {
  if (code_point == '\t' || code_point == '\n' || code_point == '\r') return false;
  constexpr uint32_t kControl = U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK | U_GC_CS_MASK;
  return code_point == 0xFFFD || (category_then(code_point) & kControl);
}

// The blocks that BERT calls Chinese. The original's extension E begins at U+2B820; the reference has U+2B920.
bool is_ideograph(CodePoint code_point) {
  constexpr std::array<Range, 8> kBlocks = {{{0x3400, 0x4DBF},
                                             {0x4E00, 0x9FFF},
                                             {0xF900, 0xFAFF},
                                             {0x20000, 0x2A6DF},
                                             {0x2A700, 0x2B73F},
                                             {0x2B740, 0x2B81F},
                                             {0x2B920, 0x2CEAF},
                                             {0x2F800, 0x2FA1F}}};
  return std::any_of(kBlocks.begin(), kBlocks.end(),
                     [&](const Range& block) { return code_point >= block.first && code_point <= block.last; });
}

std::string clean(std::string_view text, bool spaces_ideographs) {
  std::string cleaned;
  cleaned.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const CodePoint code_point = next_code_point(text, position);
    if (is_dropped(code_point)) continue;
    if (is_space(code_point)) {
      cleaned += ' ';
    } else if (spaces_ideographs && is_ideograph(code_point)) {
      cleaned += ' ';
      append_utf8(cleaned, code_point);
      cleaned += ' ';
    } else {
      append_utf8(cleaned, code_point);
    }
  }
  return cleaned;
}

std::string without_accents(std::string_view text) {
  const std::string decomposed = to_nfd(text);
  std::string stripped;
  stripped.reserve(decomposed.size());
  for (size_t position = 0; position < decomposed.size();) {
    const CodePoint code_point = next_code_point(decomposed, position);
    if (!is_nonspacing_mark(code_point)) append_utf8(stripped, code_point);
  }
  return stripped;
}

}  // namespace

std::string normalize_bert(std::string_view text, const BertNormalization& options) {
  std::string normalized = clean(text, options.spaces_ideographs);
  if (options.strips_accents) normalized = without_accents(normalized);
  return options.lowercases ? to_lower(normalized) : normalized;
}

std::vector<std::string_view> split_bert_words(std::string_view text) {
  std::vector<std::string_view> words;
  size_t begin = 0;  // of the word being read
  const auto end_word = [&](size_t end) {
    if (end > begin) words.push_back(text.substr(begin, end - begin));
  };
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const CodePoint code_point = next_code_point(text, position);
    const bool is_mark = is_punctuation(code_point);
    if (!is_mark && !is_space(code_point)) continue;
    end_word(start);
    if (is_mark) words.push_back(text.substr(start, position - start));
    begin = position;
  }
  end_word(text.size());
  return words;
}

}  // namespace prefusion::text

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace prefusion::text {

// Settings of BERT's normalizer.
struct BertNormalization {
  bool lowercases = true;
  bool strips_accents = true;
  bool spaces_ideographs = true;  // a space around every Chinese, Japanese or Korean ideograph
};

// BERT's normalizer as the Rust library under transformers has it: control characters dropped, white space to spaces,
// ideographs apart, accents stripped (NFD without nonspacing marks), lower case of every code point.
std::string normalize_bert(std::string_view text, const BertNormalization& options);

// Cuts normalized text at white space (dropped) and at punctuation, every mark of which is a word of its own. The views
// point into `text`.
std::vector<std::string_view> split_bert_words(std::string_view text);

}  // namespace prefusion::text

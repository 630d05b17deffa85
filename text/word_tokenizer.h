#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace prefusion::text {

// Writes a CLIP tokenizer folder (vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json) whose
// vocabulary is all 512 byte symbols, the merges that make each of `words` one token, and the begin and end token; any
// other text still tokenizes, byte by byte where need be. Words must be what CLIP's splitting leaves whole: lower case,
// all letters or all punctuation. Usage error naming a word that is not; repeated words count once.
void write_word_tokenizer(const std::filesystem::path& folder, const std::vector<std::string>& words,
                          int64_t model_max_length);

}  // namespace prefusion::text

#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "text/added_tokens.h"

namespace prefusion::text {

// What a T5 tokenizer folder says, whichever layout it has.
struct T5TokenizerFiles {
  std::vector<std::pair<std::string, double>> pieces;  // text and score; the id is the position
  std::string precompiled_charsmap;                    // of the normalizer; empty: text stays as it is
  std::vector<AddedToken> added_tokens;                // in the order they get ids
  std::string eos_token = "</s>";
  std::string pad_token = "<pad>";
  bool pads_left = false;
  bool truncates_left = false;
  bool split_special_tokens = false;
  std::string where;  // names the files in messages
};

// Reads tokenizer.json (it wins, as in transformers) or spiece.model, and tokenizer_config.json,
// special_tokens_map.json, added_tokens.json with the precedence of transformers 5. Like T5Tokenizer there, only the
// vocabulary, the charsmap, the added tokens and the directions of truncation and padding count of a tokenizer.json
// (steps of its normalizer that change tokens where they are obeyed are named in a warning), `extra_ids` sentinel
// tokens are added to a spiece.model, and `legacy` changes nothing. Input error naming file and key for what is
// missing, malformed or not T5's.
T5TokenizerFiles read_t5_tokenizer_files(const std::filesystem::path& folder);

}  // namespace prefusion::text

#pragma once

#include <filesystem>
#include <map>
#include <vector>

#include "core/json_config.h"
#include "text/added_tokens.h"
#include "text/byte_pair_encoding.h"

namespace prefusion::text {

// What counts of a tokenizer.json.
struct TokenizerJson {
  BytePairFiles model;
  std::vector<std::pair<int64_t, AddedToken>> added_tokens;  // id as the file gives it, token
  bool pads_left = false;
  bool truncates_left = false;
};

// Input error for a file that is malformed, or whose parts are not those of a CLIP tokenizer (the part is named).
TokenizerJson read_tokenizer_json(const std::filesystem::path& path);

// The `vocab` of a tokenizer.json's model: {"token": id}, or ["token", ...] where the position is the id. Input error
// for anything else.
Vocabulary read_vocab(const Json& json, const std::string& where);

// The `added_tokens` of a tokenizer.json with their ids; empty for null.
std::vector<std::pair<int64_t, AddedToken>> read_added_tokens(const Json& json, const std::string& where);

// Whether the `truncation` or `padding` of a tokenizer.json is on the left; false for null.
bool is_left(const Json& section, const std::string& where);

// Whether `padding_side` or `truncation_side` of a tokenizer_config.json is the left.
bool read_side(ConfigReader& reader, const std::string& key, bool fallback);

// vocab.json and merges.txt. Input error when one is missing or malformed (file and line are named).
BytePairFiles read_vocab_and_merges(const std::filesystem::path& folder);

}  // namespace prefusion::text

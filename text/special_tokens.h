#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/json_config.h"
#include "text/added_tokens.h"

namespace prefusion::text {

// The named special tokens of a tokenizer folder, and all tokens to add in order.
struct SpecialTokens {
  std::map<std::string, AddedToken> named;  // "bos_token", ...
  std::vector<AddedToken> to_add;

  std::string named_or(const std::string& name, const std::string& fallback) const {
    const auto found = named.find(name);
    return found == named.end() ? fallback : found->second.content;
  }
};

// An added token as an object {"content": ..., "lstrip": ...} or as a plain text (then special and not normalized).
// Input error for anything else.
AddedToken parse_added_token(const Json& json, const std::string& where, bool is_special = false);

// What a tokenizer's class takes for a named token that no file sets: name -> text.
using DefaultTokens = std::map<std::string, std::string>;
DefaultTokens clip_default_tokens();

// What a tokenizer's class makes of `additional_special_tokens` (null where nothing sets them) where nothing sets
// `extra_special_tokens`, the name under which transformers 5 keeps those of tokenizer_config.json.
using CompleteAdditional = std::function<Json(const Json& additional)>;

// Gathers special tokens from tokenizer_config.json (`config`), special_tokens_map.json, added_tokens.json and
// tokenizer.json (`from_tokenizer_json`, by id), with the precedence of transformers 5: an `added_tokens_decoder` in
// the config replaces the other three sources. Input error naming file and key for a token of an unexpected type.
SpecialTokens read_special_tokens(const std::filesystem::path& folder, const Json& config,
                                  const std::vector<std::pair<int64_t, AddedToken>>& from_tokenizer_json,
                                  const DefaultTokens& defaults, const CompleteAdditional& complete_additional = {});

}  // namespace prefusion::text

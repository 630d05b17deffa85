#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_pair_encoding.h"

namespace prefusion::text {

// What a CLIP tokenizer folder says, whichever layout it has.
struct ClipTokenizerFiles {
  BytePairFiles model;
  std::vector<AddedToken> added_tokens;  // in the order they get ids
  std::string bos_token = "<|startoftext|>";
  std::string eos_token = "<|endoftext|>";
  std::string pad_token = "<|endoftext|>";
  std::optional<int64_t> model_max_length;  // absent when the folder gives none, or transformers' "no limit"
  bool pads_left = false;
  bool truncates_left = false;
  bool split_special_tokens = false;
};

// Reads tokenizer.json (it wins, as in transformers) or vocab.json + merges.txt, and tokenizer_config.json,
// special_tokens_map.json, added_tokens.json with the precedence of transformers 5. Like CLIPTokenizer there, only the
// vocabulary, merges, added tokens, truncation and padding of tokenizer.json count; its other parts must be CLIP's own.
// Input error naming file and key for what is missing, malformed or not CLIP's.
ClipTokenizerFiles read_clip_tokenizer_files(const std::filesystem::path& folder);

}  // namespace prefusion::text

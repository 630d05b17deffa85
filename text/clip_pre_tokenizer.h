#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace prefusion::text {

// CLIP's normalizer: NFC, runs of white space to one space, lower case of every code point.
std::string normalize_clip(std::string_view text);

// Cuts normalized text into the words byte-pair encoding works on, as the two regular expressions of transformers'
// CLIPTokenizer do one after the other: first
//   <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
// (what does not match is dropped), then GPT-2's expression inside each piece. The views point into `text`.
std::vector<std::string_view> split_clip_words(std::string_view text);

// The same with the special texts of open_clip, <start_of_text> and <end_of_text>, which stay whole.
std::vector<std::string_view> split_open_clip_words(std::string_view text);

}  // namespace prefusion::text

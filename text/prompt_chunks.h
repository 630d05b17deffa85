#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "text/clip_text_model.h"
#include "text/clip_tokenizer.h"
#include "text/prompt_encoder.h"

namespace prefusion::text {

// A prompt's own tokens, without begin and end, and how much each counts.
struct WeightedTokens {
  std::vector<int64_t> ids;
  std::vector<float> weights;
};

// Of a prompt in that syntax; pieces of different weight are tokenized one by one. Input error for bad UTF-8.
WeightedTokens weighted_tokens(const ClipTokenizer& tokenizer, const std::string& prompt, PromptSyntax syntax);

// Those that fit into one row of the text model, as the tokenizer cuts.
WeightedTokens cut_to_fit(const ClipTokenizer& tokenizer, const WeightedTokens& tokens);

// How many rows the tokens of a prompt take: at least 1.
int64_t chunks_of(const ClipTokenizer& tokenizer, const WeightedTokens& tokens);

// Prompts as rows of a text model, K for each: with L the model's length, L - 2 tokens a row, each with begin, end and
// padding of its own. Begin, end and padding count 1.
struct TokenChunks {
  at::Tensor ids;          // int64 [B K, L]
  at::Tensor mask;         // int64 [B K, L], 0 for padding
  at::Tensor weights;      // fp32 [B, K L]
  int64_t per_prompt = 1;  // K: what the longest prompt takes, and at least `least`
};
TokenChunks split_into_chunks(const ClipTokenizer& tokenizer, const std::vector<WeightedTokens>& prompts,
                              int64_t least);

// What a text model makes of the rows, put together: states [B, K L, D], pooled ones those of the first chunk.
ClipTextOutput join_chunks(const ClipTextOutput& rows, int64_t per_prompt);

// Emphasis: states [B, L, D] times their tokens' weights [B, L], then each prompt's states scaled by one number so that
// their mean over L and D is what it was: s' = w s mean(s) / mean(w s). Where the two means differ in sign, or one is
// nothing but rounding, s' = w s.
at::Tensor weigh_states(const at::Tensor& states, const at::Tensor& weights);

}  // namespace prefusion::text

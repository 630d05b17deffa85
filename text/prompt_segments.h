#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "text/clip_tokenizer.h"

// Prompts encoded sentence by sentence, as LongAlign's code does it ("Improving Long-Text Alignment for Text-to-Image
// Diffusion Models", arXiv 2410.11817): text models never see more than a sentence, and states of many stand one after
// the other.
namespace prefusion::text {

// States of a prompt in segments, whatever its length.
constexpr int64_t kSegmentStates = 240;

// What of a prompt the encoders do not see: the ends of sentences that are longer than the text model reads, and what
// comes after kSegmentStates.
std::vector<int64_t> cut_off_segments(const ClipTokenizer& tokenizer, const std::string& prompt);

// Prompts as R rows of a text model: their sentences, the empty prompt and, where pooled states are wanted, the prompts
// themselves, cut off.
struct SegmentRows {
  at::Tensor ids;     // int64 [R, L]
  at::Tensor mask;    // int64 [R, L], 0 for padding
  at::Tensor places;  // int64 [B, kSegmentStates]: of the R L states; R L where padding stands
  int64_t empty_row = 0;
  int64_t num_pooled = 0;  // of the last rows: 0 or B
};
SegmentRows split_into_segments(const ClipTokenizer& tokenizer, const std::vector<std::string>& prompts,
                                bool is_pooled);

// States of the rows [R, L, D] put together to [B, kSegmentStates, D]: those of each sentence's begin token and tokens,
// end tokens left out, then as often as needed the mean of the empty prompt's last 60.
at::Tensor join_segments(const at::Tensor& states, const SegmentRows& segments);

// Of pooled states of the rows [R, P] those of the prompts as they are, cut off: [B, P]; undefined without such rows.
at::Tensor pooled_of_segments(const at::Tensor& pooled, const SegmentRows& segments);

}  // namespace prefusion::text

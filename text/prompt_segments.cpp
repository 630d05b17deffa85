#include "text/prompt_segments.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "text/prompt_chunks.h"
#include "text/sentences.h"

namespace prefusion::text {
namespace {

WeightedTokens tokens_that_fit(const ClipTokenizer& tokenizer, const std::string& text) {
  return cut_to_fit(tokenizer, weighted_tokens(tokenizer, text, PromptSyntax::kPlain));
}

// Where the states of a row stand that are kept: those of the begin token and of all tokens but end tokens.
std::vector<int64_t> kept_places(const ClipTokenizer& tokenizer, const std::vector<int64_t>& tokens) {
  const int64_t start = tokenizer.frame_start(tokens.size());
  std::vector<int64_t> places = {start};
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] != tokenizer.eos_token_id()) places.push_back(start + 1 + static_cast<int64_t>(i));
  }
  return places;
}

}  // namespace

std::vector<int64_t> cut_off_segments(const ClipTokenizer& tokenizer, const std::string& prompt) {
  std::vector<int64_t> cut;
  int64_t room = kSegmentStates;
  for (const std::string& sentence : split_caption(prompt)) {
    const std::vector<int64_t> excess = tokenizer.cut_off(tokenizer.encode(sentence));
    const std::vector<int64_t> tokens = tokens_that_fit(tokenizer, sentence).ids;
    --room;  // the begin token
    const auto fitting = static_cast<std::ptrdiff_t>(std::clamp<int64_t>(room, 0, std::ssize(tokens)));
    cut.insert(cut.end(), tokens.begin() + fitting, tokens.end());
    cut.insert(cut.end(), excess.begin(), excess.end());
    room -= std::ssize(tokens);
  }
  return cut;
}

SegmentRows split_into_segments(const ClipTokenizer& tokenizer, const std::vector<std::string>& prompts,
                                bool is_pooled) {
  const int64_t length = tokenizer.model_max_length();
  const auto batch = static_cast<int64_t>(prompts.size());
  std::vector<WeightedTokens> rows;
  std::vector<std::vector<int64_t>> places;  // of each prompt
  for (const std::string& prompt : prompts) {
    std::vector<int64_t>& kept = places.emplace_back();
    for (const std::string& sentence : split_caption(prompt)) {
      const WeightedTokens& tokens = rows.emplace_back(tokens_that_fit(tokenizer, sentence));
      for (const int64_t place : kept_places(tokenizer, tokens.ids)) {
        kept.push_back((std::ssize(rows) - 1) * length + place);
      }
    }
  }
  SegmentRows segments{.empty_row = std::ssize(rows), .num_pooled = is_pooled ? batch : 0};
  rows.emplace_back();
  if (is_pooled) {
    for (const std::string& prompt : prompts) rows.push_back(tokens_that_fit(tokenizer, prompt));
  }
  TokenChunks framed = split_into_chunks(tokenizer, rows, /*least=*/1);
  segments.ids = std::move(framed.ids);
  segments.mask = std::move(framed.mask);
  segments.places = at::full({batch, kSegmentStates}, std::ssize(rows) * length, at::kLong);
  for (int64_t item = 0; item < batch; ++item) {
    const std::vector<int64_t>& kept = places[static_cast<size_t>(item)];
    std::copy_n(kept.begin(), std::min(std::ssize(kept), std::ptrdiff_t{kSegmentStates}),
                segments.places[item].data_ptr<int64_t>());
  }
  return segments;
}

at::Tensor join_segments(const at::Tensor& states, const SegmentRows& segments) {
  constexpr int64_t kPaddingStates = 60;
  const at::Tensor empty = states[segments.empty_row];  // [L, D]
  const int64_t first = std::max<int64_t>(0, empty.size(0) - kPaddingStates);
  const at::Tensor padding = empty.slice(0, first).mean(0, /*keepdim=*/true);
  const at::Tensor all = at::cat({states.flatten(0, 1), padding});  // [R L + 1, D]
  return all.index_select(0, segments.places.flatten().to(all.device()))
      .reshape({segments.places.size(0), kSegmentStates, states.size(2)});
}

at::Tensor pooled_of_segments(const at::Tensor& pooled, const SegmentRows& segments) {
  if (!pooled.defined() || segments.num_pooled == 0) return {};
  return pooled.slice(0, pooled.size(0) - segments.num_pooled).contiguous();
}

}  // namespace prefusion::text

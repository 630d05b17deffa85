#include "text/prompt_chunks.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "text/prompt_syntax.h"

namespace prefusion::text {
namespace {

size_t room(const ClipTokenizer& tokenizer) {
  return static_cast<size_t>(tokenizer.model_max_length() - 2);  // begin and end token
}

}  // namespace

WeightedTokens weighted_tokens(const ClipTokenizer& tokenizer, const std::string& prompt, PromptSyntax syntax) {
  const std::vector<WeightedText> pieces = syntax == PromptSyntax::kWeighted
                                               ? parse_weighted_prompt(prompt)
                                               : std::vector<WeightedText>{{.text = prompt, .weight = 1.0}};
  WeightedTokens result;
  for (const WeightedText& piece : pieces) {
    const std::vector<int64_t> ids = tokenizer.encode(piece.text);
    result.ids.insert(result.ids.end(), ids.begin(), ids.end());
    result.weights.resize(result.ids.size(), static_cast<float>(piece.weight));
  }
  return result;
}

WeightedTokens cut_to_fit(const ClipTokenizer& tokenizer, const WeightedTokens& tokens) {
  const auto excess = static_cast<std::ptrdiff_t>(tokenizer.cut_off(tokens.ids).size());
  const std::ptrdiff_t front = tokenizer.truncates_left() ? excess : 0;
  const std::ptrdiff_t back = excess - front;
  return {.ids = {tokens.ids.begin() + front, tokens.ids.end() - back},
          .weights = {tokens.weights.begin() + front, tokens.weights.end() - back}};
}

int64_t chunks_of(const ClipTokenizer& tokenizer, const WeightedTokens& tokens) {
  const size_t capacity = room(tokenizer);
  return static_cast<int64_t>(std::max<size_t>(1, (tokens.ids.size() + capacity - 1) / capacity));
}

TokenChunks split_into_chunks(const ClipTokenizer& tokenizer, const std::vector<WeightedTokens>& prompts,
                              int64_t least) {
  TokenChunks chunks{.ids = {}, .mask = {}, .weights = {}, .per_prompt = least};
  for (const WeightedTokens& prompt : prompts) {
    chunks.per_prompt = std::max(chunks.per_prompt, chunks_of(tokenizer, prompt));
  }
  const auto batch = static_cast<int64_t>(prompts.size());
  const int64_t length = tokenizer.model_max_length();
  chunks.ids = at::empty({batch * chunks.per_prompt, length}, at::kLong);
  chunks.mask = at::zeros_like(chunks.ids);
  chunks.weights = at::ones({batch, chunks.per_prompt * length}, at::kFloat);
  auto* ids = chunks.ids.data_ptr<int64_t>();
  auto* mask = chunks.mask.data_ptr<int64_t>();
  auto* weights = chunks.weights.data_ptr<float>();
  const size_t capacity = room(tokenizer);
  for (const WeightedTokens& prompt : prompts) {
    for (int64_t k = 0; k < chunks.per_prompt; ++k, ids += length, mask += length, weights += length) {
      const size_t begin = std::min(prompt.ids.size(), static_cast<size_t>(k) * capacity);
      const size_t count = std::min(prompt.ids.size() - begin, capacity);
      const auto first = static_cast<std::ptrdiff_t>(begin);
      const auto last = first + static_cast<std::ptrdiff_t>(count);
      std::ranges::copy(tokenizer.frame({prompt.ids.begin() + first, prompt.ids.begin() + last}), ids);
      const int64_t start = tokenizer.frame_start(count);
      std::fill_n(mask + start, count + 2, 1);
      std::copy(prompt.weights.begin() + first, prompt.weights.begin() + last, weights + start + 1);
    }
  }
  return chunks;
}

ClipTextOutput join_chunks(const ClipTextOutput& rows, int64_t per_prompt) {
  if (per_prompt == 1) return rows;
  const auto joined = [&](const at::Tensor& states) {
    return states.reshape({states.size(0) / per_prompt, per_prompt * states.size(1), states.size(2)});
  };
  const auto first = [&](const at::Tensor& pooled) {
    return pooled.defined() ? pooled.slice(0, 0, pooled.size(0), per_prompt).contiguous() : pooled;
  };
  ClipTextOutput output{.last_hidden_state = joined(rows.last_hidden_state),
                        .hidden_states = {},
                        .pooled = first(rows.pooled),
                        .text_embeds = first(rows.text_embeds)};
  for (const at::Tensor& layer : rows.hidden_states) output.hidden_states.push_back(joined(layer));
  return output;
}

at::Tensor weigh_states(const at::Tensor& states, const at::Tensor& weights) {
  constexpr double kNoise = 1e-4;  // of the root mean square: a smaller mean is what rounding leaves of zero
  const std::vector<int64_t> dims = {1, 2};
  const at::Tensor wide = states.to(at::kFloat);
  const at::Tensor weighted = wide * weights.unsqueeze(-1);
  const at::Tensor before = wide.mean(dims, /*keepdim=*/true);
  const at::Tensor after = weighted.mean(dims, /*keepdim=*/true);
  const at::Tensor smallest = kNoise * wide.square().mean(dims, /*keepdim=*/true).sqrt();
  const at::Tensor says_something =
      (before * after > 0).logical_and(before.abs() > smallest).logical_and(after.abs() > smallest);
  return (weighted * at::where(says_something, before / after, at::ones_like(before))).to(states.scalar_type());
}

}  // namespace prefusion::text

#include "text/prompt_encoder.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace prefusion::text {

const char* long_prompts_name(LongPrompts long_prompts) {
  switch (long_prompts) {
    case LongPrompts::kTruncate: return "truncate";
    case LongPrompts::kChunk: return "chunk";
    case LongPrompts::kSegments: return "segments";
  }
  return "";
}

LongPrompts parse_long_prompts(const std::string& name) {
  for (const LongPrompts known : {LongPrompts::kTruncate, LongPrompts::kChunk, LongPrompts::kSegments}) {
    if (name == long_prompts_name(known)) return known;
  }
  fail_usage("--long-prompts ", name, ": expected truncate, chunk or segments");
}

PromptStates PromptEncoder::encode(const std::vector<std::string>& prompts, int64_t least_chunks) {
  const at::NoGradGuard no_grad;
  return encode_prompts(prompts, least_chunks);
}

PromptStates PromptEncoder::encode_with_gradients(const std::vector<std::string>& prompts) {
  check_usage(can_be_trained(), "the text encoders of this family of models are not trained");
  return encode_prompts(prompts, /*least_chunks=*/1);
}

PromptStates PromptEncoder::encode_negative(const std::vector<std::string>& prompts, int64_t least_chunks) {
  const at::NoGradGuard no_grad;
  return encode_negative_prompts(prompts, least_chunks);
}

}  // namespace prefusion::text

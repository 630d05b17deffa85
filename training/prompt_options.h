#pragma once

#include "text/prompt_encoder.h"
#include "training/align_options.h"

namespace prefusion::training {

// How a run encodes its prompts. Usage error for a --long-prompts that is none.
inline text::PromptEncoderOptions prompt_options(const AlignOptions& options) {
  return {.long_prompts = text::parse_long_prompts(options.long_prompts), .streams_weights = options.stream_weights};
}

}  // namespace prefusion::training

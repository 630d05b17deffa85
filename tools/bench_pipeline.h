#pragma once

#include "pipelines/text_to_image.h"
#include "tools/bench_parts.h"

namespace prefusion::tools {

// The model of --model, or one of its configs (model_index.json and those of denoiser, autoencoder and scheduler) with
// random weights and, in place of text encoders, random states of options.num_tokens tokens.
pipelines::TextToImage open_bench_pipeline(const BenchOptions& options);

}  // namespace prefusion::tools

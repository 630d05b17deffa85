#pragma once

#include <ATen/core/Tensor.h>

#include "training/align_options.h"

namespace prefusion::training {

// Fine-tunes a model on preferences: reads options.data, trains, and fills options.output with the weights, run.toml,
// metrics.jsonl, TensorBoard events, report.html, samples/, checkpoints/ and a model card. Options must be validated.
// Throws Interrupted after saving a checkpoint on SIGINT or SIGTERM.
void align(const AlignOptions& options, at::Device device, at::ScalarType dtype);

}  // namespace prefusion::training

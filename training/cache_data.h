#pragma once

#include <ATen/core/Tensor.h>

#include "training/align_options.h"

namespace prefusion::training {

// Encodes what `align` with these options would encode for all of the data, into options.cache, without training. With
// `num_draws` the reference's errors of that many draws of every training group as well, for --reference cached
// --reference-draws; with a curriculum by hardness the errors that tell it. What the cache holds already is kept;
// interrupted, it goes on where it was. The options must be validated as of a run with --reference cached where
// num_draws is not 0.
void cache_data(const AlignOptions& options, int64_t num_draws, at::Device device, at::ScalarType dtype);

}  // namespace prefusion::training

#pragma once

#include <string>

#include "core/content_hash.h"
#include "core/safetensors.h"

namespace prefusion::training {

// Adds a tensor's type, shape and bytes.
void add_tensor(ContentHasher& hash, const at::Tensor& tensor);

// Content key of a network's weights. `what` says what kind of network it is.
std::string weights_key(const std::string& what, const TensorMap& weights);

// A key of weights that reads little of them: names, shapes and the first numbers of each tensor. For telling one model
// from another, not for content that may be altered on purpose.
std::string sampled_weights_key(const TensorMap& weights);

}  // namespace prefusion::training

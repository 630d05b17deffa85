#pragma once

#include <string>

#include "core/content_hash.h"
#include "core/safetensors.h"

namespace prefusion::training {

// Adds a tensor's type, shape and bytes.
void add_tensor(ContentHasher& hash, const at::Tensor& tensor);

// Content key of a network's weights. `what` says what kind of network it is.
std::string weights_key(const std::string& what, const TensorMap& weights);

}  // namespace prefusion::training

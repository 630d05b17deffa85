#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace prefusion {

// A parameter or buffer of a module, by its public checkpoint name.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// Checks that `source` has exactly the names and shapes of `destination`, and collects every missing, unexpected and
// mis-shaped key in one input error. `where` names the folder.
void check_weights(const std::vector<NamedTensor>& destination, const TensorMap& source, const std::string& where);

// check_weights, then points each destination tensor at the source's data in dtype and device of choice. Data of the
// right dtype on the CPU is not copied: it stays mapped from its file until it is written to. Without a dtype floating
// tensors keep that of the source.
void load_weights_strict(const std::vector<NamedTensor>& destination, const TensorMap& source,
                         std::optional<at::ScalarType> dtype, at::Device device, const std::string& where);

}  // namespace prefusion

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace prefusion::nn {

using BlockFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

}  // namespace prefusion::nn

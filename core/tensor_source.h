#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace prefusion {

// A tensor whose dtype and shape are known before its values are: what is converted passes through memory one tensor at
// a time.
struct TensorSource {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::function<at::Tensor()> load;

  int64_t numel() const;
};

using TensorSources = std::map<std::string, TensorSource>;

// A tensor that is there already, as one mapped from its file is.
TensorSource tensor_source(const at::Tensor& tensor);
TensorSources tensor_sources(const TensorMap& tensors);

// The tensors of a safetensors file or of one that torch.save wrote, by the file's name: loaded when asked for.
TensorSources open_tensors(const std::filesystem::path& path, Metadata* metadata = nullptr);

// As write_safetensors with tensors; each is loaded when its turn comes and dropped when it is written. `on_written`
// (may be empty) hears the bytes written so far and may throw to stop: then nothing of the file is kept.
void write_safetensors(const std::filesystem::path& path, const TensorSources& tensors, const Metadata& metadata,
                       const std::function<void(size_t bytes)>& on_written = {});

}  // namespace prefusion

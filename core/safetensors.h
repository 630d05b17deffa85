#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace prefusion {

using TensorMap = std::map<std::string, at::Tensor>;
using Metadata = std::map<std::string, std::string>;

// A safetensors file, memory-mapped. The header is checked to the byte before anything is read: length, JSON, dtypes,
// shapes that match their byte ranges, ranges that neither overlap, leave holes, nor leave the file.
class SafetensorsFile {
 public:
  struct Entry {
    at::ScalarType dtype;
    std::vector<int64_t> shape;
    size_t begin;  // bytes from the start of the data section
    size_t end;
  };

  // Input error when the file is missing or violates the format.
  static SafetensorsFile open(const std::filesystem::path& path);

  // A view of the mapping, valid as long as the tensor lives; treat it as read-only. Input error when absent.
  at::Tensor tensor(const std::string& name) const;

  const std::map<std::string, Entry>& entries() const { return entries_; }
  const Metadata& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Mapping;
  std::shared_ptr<Mapping> mapping_;
  size_t data_offset_ = 0;
  std::map<std::string, Entry> entries_;
  Metadata metadata_;
  std::filesystem::path path_;
};

// All tensors of one file.
TensorMap read_safetensors(const std::filesystem::path& path, Metadata* metadata = nullptr);

// All weights of a diffusers/transformers component folder: `stem`.safetensors, its `stem`.safetensors.index.json
// shards, or a variant such as `stem`.fp16.safetensors (plain names win; "model" and "diffusion_pytorch_model" are
// usual stems). Input error that lists what was looked for when none is there, or when a folder holds only pickles.
TensorMap read_weights(const std::filesystem::path& folder, const std::string& stem);

// Writes tensors (made contiguous, moved to the CPU) atomically: beside, fsync, rename. Names are sorted, data aligned
// to 8 bytes.
void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors, const Metadata& metadata = {});

// The dtype names of the format ("F32", "BF16", ...); input error for one that is unknown.
const char* safetensors_dtype_name(at::ScalarType dtype);

}  // namespace prefusion

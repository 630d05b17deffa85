#pragma once

#include <filesystem>
#include <string>

#include "core/safetensors.h"

namespace prefusion {

// The tensors of a file that torch.save wrote (.pt, .pth, .bin; also as torch before 1.6 did) or of a TorchScript
// archive, by their way through nested dicts, lists and attributes: {"a": [t]} gives "a.0". Other values are passed
// over. Nothing of the pickle is executed: a file that would call anything but the makers of tensors is refused, naming
// what. Tensors are views of the mapped file, which must be treated as read-only. Input error for anything malformed.
TensorMap read_torch_file(const std::filesystem::path& path);

// read_safetensors or read_torch_file, by the file's name.
TensorMap read_tensors(const std::filesystem::path& path);

// read_weights(folder, stem); where the folder has no safetensors, what torch.save made of them: pytorch_model.bin, or
// the shards that pytorch_model.bin.index.json lists.
TensorMap read_any_weights(const std::filesystem::path& folder, const std::string& stem);

// The weights of a model in what a training script saved: those below "state_dict" where there is such an entry,
// without the prefix "module." of data-parallel training.
TensorMap model_weights(const TensorMap& checkpoint);

}  // namespace prefusion

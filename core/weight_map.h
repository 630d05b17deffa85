#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace prefusion {

// The tensors that the *.index.json of sharded weights names, each with the file beside the index that holds it. Input
// error for an index that is malformed or leads out of its folder.
std::map<std::string, std::filesystem::path> read_weight_map(const std::filesystem::path& index_path);

}  // namespace prefusion

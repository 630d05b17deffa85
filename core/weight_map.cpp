#include "core/weight_map.h"

#include "core/error.h"
#include "core/json_config.h"

namespace prefusion {

std::map<std::string, std::filesystem::path> read_weight_map(const std::filesystem::path& index_path) {
  const Json index = read_json(index_path);
  const std::string where = index_path.string();
  check_input(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), where,
              ": expected an object with 'weight_map'");
  std::map<std::string, std::filesystem::path> shards;
  for (const auto& [name, value] : index["weight_map"].items()) {
    check_input(value.is_string(), where, ": weight_map['", name, "'] is no file name");
    const auto shard = value.get<std::string>();
    check_input(std::filesystem::path(shard).filename() == shard, where, ": shard name '", shard,
                "' must be a plain file name beside the index");
    shards.emplace(name, index_path.parent_path() / shard);
  }
  return shards;
}

}  // namespace prefusion

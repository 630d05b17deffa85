#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "core/json_config.h"
#include "kernels/attention/attention.h"

namespace prefusion::kernels {

// The fastest path of each attention that was measured on this machine (`prefusion bench tune`). An entry is of one
// shape of head, dtype, device, and of whether gradients are wanted; how many heads and items there are does not
// matter.
class AttentionTable {
 public:
  // Of a file that save() wrote; empty where there is none. Input error for a file that is something else.
  static AttentionTable load(const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;

  // Nothing where it was not measured.
  std::optional<AttentionPath> find(const at::Tensor& query, const at::Tensor& key, bool has_gradient) const;
  void set(const at::Tensor& query, const at::Tensor& key, bool has_gradient, AttentionPath path);

  size_t size() const { return paths_.size(); }

 private:
  std::map<std::string, AttentionPath> paths_;
};

// Where the table of this machine is: $PREFUSION_TUNING, else prefusion/tuning.json below $XDG_CACHE_HOME or ~/.cache;
// empty where none of these is known.
std::filesystem::path attention_table_path();

// The table that attention() asks: that of attention_table_path(), read when it is first asked for.
const AttentionTable& attention_table();

}  // namespace prefusion::kernels

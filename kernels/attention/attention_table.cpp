#include "kernels/attention/attention_table.h"

#include <cstdlib>

#include "core/atomic_file.h"
#include "core/device.h"
#include "core/error.h"
#include "kernels/device_name.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kFormat = "prefusion attention table 1";

// "bf16, 4096 x 77 of 40, with gradient, on NVIDIA H200"
std::string entry_name(const at::Tensor& query, const at::Tensor& key, bool has_gradient) {
  return concat(dtype_name(query.scalar_type()), ", ", query.size(2), " x ", key.size(2), " of ", query.size(3),
                has_gradient ? ", with gradient" : "", ", on ", device_name(query.device()));
}

}  // namespace

AttentionTable AttentionTable::load(const std::filesystem::path& path) {
  AttentionTable table;
  if (path.empty() || !std::filesystem::exists(path)) return table;
  const Json file = read_json(path);
  check_input(file.is_object() && file.value("format", "") == kFormat && file.contains("fastest") &&
                  file["fastest"].is_object(),
              path.string(), ": is no table of `prefusion bench tune`; run it again or remove the file");
  for (const auto& [name, value] : file["fastest"].items()) {
    const auto parsed = value.is_string() ? parse_attention_path(value.get<std::string>()) : std::nullopt;
    check_input(parsed.has_value(), path.string(), ": '", name, "' is ", value.dump(), ", expected one of ",
                attention_path_names());
    table.paths_[name] = *parsed;
  }
  return table;
}

void AttentionTable::save(const std::filesystem::path& path) const {
  Json fastest = Json::object();
  for (const auto& [name, found] : paths_) fastest[name] = attention_path_name(found);
  write_file(path, Json{{"format", kFormat}, {"fastest", fastest}}.dump(1) + "\n");
}

std::optional<AttentionPath> AttentionTable::find(const at::Tensor& query, const at::Tensor& key,
                                                  bool has_gradient) const {
  if (paths_.empty()) return std::nullopt;
  const auto found = paths_.find(entry_name(query, key, has_gradient));
  return found == paths_.end() ? std::nullopt : std::optional(found->second);
}

void AttentionTable::set(const at::Tensor& query, const at::Tensor& key, bool has_gradient, AttentionPath path) {
  paths_[entry_name(query, key, has_gradient)] = path;
}

std::filesystem::path attention_table_path() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (const auto given = variable("PREFUSION_TUNING"); !given.empty()) return given;
  if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache / "prefusion" / "tuning.json";
  const auto home = variable("HOME");
  return home.empty() ? home : home / ".cache" / "prefusion" / "tuning.json";
}

const AttentionTable& attention_table() {
  static const AttentionTable table = AttentionTable::load(attention_table_path());
  return table;
}

}  // namespace prefusion::kernels

#include "core/json_config.h"

#include <fstream>
#include <sstream>

namespace prefusion {

void check_json_depth(std::string_view text, const std::string& where) {
  constexpr int kDeepest = 256;
  int depth = 0;
  bool is_text = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (is_text) {
      if (c == '\\') ++i;
      if (c == '"') is_text = false;
    } else if (c == '"') {
      is_text = true;
    } else if (c == '[' || c == '{') {
      check_input(++depth <= kDeepest, where, ": JSON nests deeper than ", kDeepest, " levels");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

Json parse_json(std::string_view text, const std::string& where) {
  check_json_depth(text, where);
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& error) {
    fail_input(where, ": not valid JSON (", error.what(), ")");
  }
}

Json read_json(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  check_input(file.good(), path.string(), ": cannot be opened; expected a JSON file");
  std::ostringstream text;
  text << file.rdbuf();
  return parse_json(text.str(), path.string());
}

ConfigReader::ConfigReader(Json object, std::string where) : object_(std::move(object)), where_(std::move(where)) {
  check_input(object_.is_object(), where_, ": expected a JSON object, found ", object_.type_name());
}

ConfigReader ConfigReader::from_file(const std::filesystem::path& path) {
  return ConfigReader(read_json(path), path.string());
}

const Json* ConfigReader::find(const std::string& key) {
  read_.insert(key);
  const auto entry = object_.find(key);
  return entry == object_.end() || entry->is_null() ? nullptr : &*entry;
}

const Json& ConfigReader::raw(const std::string& key) {
  static const Json kNull;
  const Json* value = find(key);
  return value ? *value : kNull;
}

std::vector<int64_t> ConfigReader::int_or_list(const std::string& key, size_t count, int64_t fallback) {
  const Json* value = find(key);
  if (!value) return std::vector<int64_t>(count, fallback);
  if (!value->is_array()) return std::vector<int64_t>(count, convert<int64_t>(key, *value));
  auto list = convert<std::vector<int64_t>>(key, *value);
  check_input(list.size() == count, where_, ": key '", key, "' has ", list.size(), " entries, expected ", count);
  return list;
}

void ConfigReader::ignore(std::initializer_list<const char*> keys) {
  read_.insert(keys.begin(), keys.end());
}

void ConfigReader::finish() const {
  std::string unknown;
  for (const auto& [key, value] : object_.items()) {
    if (key.starts_with('_') || read_.contains(key) || value.is_null()) continue;
    unknown += (unknown.empty() ? "'" : ", '") + key + "'";
  }
  check_input(unknown.empty(), where_, ": unknown config keys ", unknown,
              "; prefusion does not know what they change, so it refuses them");
}

void ConfigReader::refuse(const std::string& key, const Json& value) const {
  fail_input(where_, ": '", key, "' = ", value.dump(), " is not supported");
}

}  // namespace prefusion

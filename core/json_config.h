#pragma once

#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"

namespace prefusion {

using Json = nlohmann::json;

// Reads and parses a JSON file. Input error (with path and position) when it is missing or malformed.
Json read_json(const std::filesystem::path& path);

// Input error when brackets nest deeper than any real file's: recursive code over such a value would overflow the
// stack.
void check_json_depth(std::string_view text, const std::string& where);

// Parses JSON text; `where` names it in the error.
Json parse_json(std::string_view text, const std::string& where);

// Typed access to a model folder's config, which remembers what was asked for: finish() refuses every key that
// nobody read, so no setting of a model is ever ignored in silence. A JSON null counts as absent.
class ConfigReader {
 public:
  // `where` names the config in messages, usually its path.
  ConfigReader(Json object, std::string where);
  static ConfigReader from_file(const std::filesystem::path& path);

  // Value of `key`, or `fallback` when absent or null. Input error when the type does not fit.
  template <typename T>
  T get(const std::string& key, T fallback) {
    const Json* value = find(key);
    return value ? convert<T>(key, *value) : std::move(fallback);
  }

  // Value of `key`; input error when absent.
  template <typename T>
  T require(const std::string& key) {
    const Json* value = find(key);
    if (!value) fail_input(where_, ": missing key '", key, "'");
    return convert<T>(key, *value);
  }

  template <typename T>
  std::optional<T> optional(const std::string& key) {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    return convert<T>(key, *value);
  }

  // The raw value (null when absent), for fields that may be a number or a list.
  const Json& raw(const std::string& key);

  // A number or a list: `count` copies of a number, or the list itself, which must have `count` entries.
  std::vector<int64_t> int_or_list(const std::string& key, size_t count, int64_t fallback);

  // Refuses by name a key whose value differs from the only one supported: "unet/config.json: 'dual_cross_attention' =
  // true is not supported".
  template <typename T>
  void only(const std::string& key, T supported) {
    const Json* value = find(key);
    if (value && *value != Json(supported)) refuse(key, *value);
  }

  // Keys that carry no meaning for us (versions, training-only notes); keys that begin with '_' are always such.
  void ignore(std::initializer_list<const char*> keys);

  // Input error that names every key nobody read.
  void finish() const;

  [[noreturn]] void refuse(const std::string& key, const Json& value) const;
  const std::string& where() const { return where_; }
  bool has(const std::string& key) const { return object_.contains(key) && !object_.at(key).is_null(); }

 private:
  const Json* find(const std::string& key);

  [[noreturn]] void fail_type(const std::string& key, const Json& value) const {
    fail_input(where_, ": key '", key, "' has an unexpected type: ", value.dump());
  }

  // nlohmann converts 1.5 and true to integers in silence; here a number must be one, and fit.
  template <typename T>
  T convert(const std::string& key, const Json& value) const {
    if constexpr (is_vector<T>::value) {
      if (!value.is_array()) fail_type(key, value);
      T list;
      for (const Json& entry : value) list.push_back(convert<typename T::value_type>(key, entry));
      return list;
    } else if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (!value.is_number()) fail_type(key, value);
      const auto number = value.get<T>();
      if (Json(number) != value) fail_type(key, value);
      return number;
    } else {
      if (std::is_floating_point_v<T> && !value.is_number()) fail_type(key, value);
      try {
        return value.get<T>();
      } catch (const Json::exception&) {
        fail_type(key, value);
      }
    }
  }

  template <typename T>
  struct is_vector : std::false_type {};
  template <typename T>
  struct is_vector<std::vector<T>> : std::true_type {};

  Json object_;
  std::string where_;
  std::set<std::string> read_;
};

}  // namespace prefusion

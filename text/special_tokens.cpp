#include "text/special_tokens.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;

constexpr std::array kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

bool is_standard_name(const std::string& name) {
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

Json read_optional_object(const fs::path& path) {
  if (!fs::exists(path)) return Json::object();
  Json json = read_json(path);
  check_input(json.is_object(), path.string(), ": expected a JSON object, found ", json.type_name());
  return json;
}

int64_t parse_id(const std::string& text, const std::string& where) {
  int64_t id = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), id);
  check_input(status == std::errc() && end == text.data() + text.size(), where, ": '", text, "' is not a token id");
  return id;
}

bool is_truthy(const Json& json) {
  return !json.is_null() && !((json.is_object() || json.is_array()) && json.empty());
}

// Collects the settings of all files under the names transformers knows them by.
class Collector {
 public:
  Collector(const fs::path& folder, const Json& config, const DefaultTokens& defaults,
            const CompleteAdditional& complete_additional)
      : folder_(folder), config_(config), defaults_(defaults), complete_additional_(complete_additional) {}

  SpecialTokens collect(const std::vector<std::pair<int64_t, AddedToken>>& from_tokenizer_json) {
    const std::string where = (folder_ / "tokenizer_config.json").string();
    if (config_.contains("additional_special_tokens") && !is_truthy(value("extra_special_tokens"))) {
      settings_["extra_special_tokens"] = value("additional_special_tokens");
      settings_["additional_special_tokens"] = nullptr;
    }
    const Json& decoder = value("added_tokens_decoder");
    if (config_.contains("added_tokens_decoder")) {
      check_input(decoder.is_object(), where, ": 'added_tokens_decoder' is not an object");
      for (const auto& [id, token] : decoder.items()) {
        check_input(token.is_object(), where, ": added token ", id, " is not an object");
        by_id_[parse_id(id, where)] = parse_added_token(token, where);
      }
    } else {
      read_special_tokens_map();
      read_added_tokens();
      for (const auto& [id, token] : from_tokenizer_json) by_id_[id] = token;
    }
    return in_order(where);
  }

 private:
  const Json& value(const std::string& key) const {
    static const Json kNull;
    if (const auto found = settings_.find(key); found != settings_.end()) return found->second;
    const auto found = config_.find(key);
    return found == config_.end() ? kNull : *found;
  }

  // special_tokens_map.json wins over tokenizer_config.json; its lists of extra tokens are joined.
  void read_special_tokens_map() {
    const Json map = read_optional_object(folder_ / "special_tokens_map.json");
    for (const auto& [key, token] : map.items()) {
      if (key == "extra_special_tokens" && token.is_array() && value(key).is_array()) {
        Json joined = value(key);
        for (const Json& extra : token) {
          if (std::find(joined.begin(), joined.end(), extra) == joined.end()) joined.push_back(extra);
        }
        settings_[key] = joined;
      } else {
        settings_[key] = token;
      }
    }
  }

  void read_added_tokens() {
    const fs::path path = folder_ / "added_tokens.json";
    const Json added = read_optional_object(path);
    for (const auto& [content, id] : added.items()) {
      check_input(id.is_number_integer(), path.string(), ": token '", content, "' has the id ", id.dump());
      const bool is_special = is_special_text(content);
      by_id_[id.get<int64_t>()] = {.content = content, .normalized = !is_special, .special = is_special};
    }
  }

  static bool is_token_text(const Json& json, const std::string& content) {
    return json.is_string() ? json.get<std::string>() == content
                            : json.is_object() && json.value("content", "") == content;
  }

  bool is_special_text(const std::string& content) const {
    const bool is_named = std::any_of(kNames.begin(), kNames.end(),
                                      [&](const char* name) { return is_token_text(value(name), content); });
    const Json& extras = value("extra_special_tokens");
    return is_named || (extras.is_array() && std::any_of(extras.begin(), extras.end(), [&](const Json& extra) {
                          return is_token_text(extra, content);
                        }));
  }

  AddedToken* added_by_id(const std::string& content) {
    for (auto& [id, token] : by_id_) {
      if (token.content == content) return &token;
    }
    return nullptr;
  }

  // All settings that name a token beyond the standard ones: "image_token": "<image>", or an object of extra tokens.
  std::map<std::string, Json> model_specific() const {
    std::map<std::string, Json> found;
    const auto add = [&](const std::string& key, const Json& token) {
      if (key.ends_with("_token") && !is_standard_name(key) && token.is_string()) found[key] = token;
    };
    for (const auto& [key, token] : config_.items()) add(key, token);
    for (const auto& [key, token] : settings_) add(key, token);
    for (const char* key : {"extra_special_tokens", "model_specific_special_tokens"}) {
      const Json& object = value(key);
      if (!object.is_object()) continue;
      for (const auto& [name, token] : object.items()) found[name] = token;
    }
    return found;
  }

  // An object of extra tokens counts as none: model_specific() has its tokens.
  Json extra_tokens() const {
    const bool is_set = settings_.contains("extra_special_tokens") || config_.contains("extra_special_tokens");
    if (is_set && !value("extra_special_tokens").is_object()) return value("extra_special_tokens");
    const Json& additional = value("additional_special_tokens");
    return complete_additional_ ? complete_additional_(additional) : additional;
  }

  // Order of addition: by id, then the named tokens, then the extra ones. What has an id keeps the flags it has there.
  SpecialTokens in_order(const std::string& where) {
    SpecialTokens result;
    std::vector<AddedToken> without_id;
    const auto add = [&](const AddedToken& token) {
      if (!added_by_id(token.content)) without_id.push_back(token);
    };
    const auto add_named = [&](const std::string& name, const Json& json) {
      const AddedToken token = parse_added_token(json, where + " ('" + name + "')", /*is_special=*/true);
      if (AddedToken* added = added_by_id(token.content)) added->special = true;
      result.named[name] = token;
      add(token);
    };
    for (const std::string name : kNames) {
      const Json& json = value(name);
      if (!json.is_null()) {
        add_named(name, json);
      } else if (const auto fallback = defaults_.find(name); fallback != defaults_.end()) {
        add_named(name, fallback->second);
      }
    }
    for (const auto& [name, json] : model_specific()) add_named(name, json);
    const Json extras = extra_tokens();
    if (extras.is_array()) {
      for (const Json& extra : extras)
        add(parse_added_token(extra, where + " (extra_special_tokens)", /*is_special=*/true));
    }
    for (const auto& [id, token] : by_id_) result.to_add.push_back(token);
    result.to_add.insert(result.to_add.end(), without_id.begin(), without_id.end());
    return result;
  }

  const fs::path& folder_;
  const Json& config_;
  const DefaultTokens& defaults_;
  const CompleteAdditional& complete_additional_;
  std::map<std::string, Json> settings_;  // what overrides the config
  std::map<int64_t, AddedToken> by_id_;
};

}  // namespace

AddedToken parse_added_token(const Json& json, const std::string& where, bool is_special) {
  AddedToken token;
  if (json.is_string()) {
    token.content = json.get<std::string>();
    token.normalized = false;
    token.special = true;
    return token;
  }
  check_input(json.is_object(), where, ": a token is a text or an object, found ", json.dump());
  ConfigReader reader(json, where);
  reader.ignore({"id", "__type"});
  token.content = reader.require<std::string>("content");
  const bool says_special = reader.get("special", false);
  token.special = says_special || is_special;
  token.single_word = reader.get("single_word", false);
  token.lstrip = reader.get("lstrip", false);
  token.rstrip = reader.get("rstrip", false);
  token.normalized = reader.get("normalized", !token.special);
  reader.finish();
  return token;
}

DefaultTokens clip_default_tokens() {
  return {{"bos_token", "<|startoftext|>"},
          {"eos_token", "<|endoftext|>"},
          {"unk_token", "<|endoftext|>"},
          {"pad_token", "<|endoftext|>"}};
}

SpecialTokens read_special_tokens(const fs::path& folder, const Json& config,
                                  const std::vector<std::pair<int64_t, AddedToken>>& from_tokenizer_json,
                                  const DefaultTokens& defaults, const CompleteAdditional& complete_additional) {
  try {
    return Collector(folder, config, defaults, complete_additional).collect(from_tokenizer_json);
  } catch (const Json::exception& error) {
    fail_input(folder.string(), ": unexpected structure of the special tokens (", error.what(), ")");
  }
}

}  // namespace prefusion::text

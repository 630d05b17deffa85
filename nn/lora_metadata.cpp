#include "nn/lora_metadata.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::nn {
namespace {

// Whether a value switches something on. Whatever an adapter's description leaves null, false or empty is unused.
bool is_set(const Json& value) {
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_array() || value.is_object()) return !value.empty();
  return true;
}

// Settings that do not change what the trained adapter computes.
const std::set<std::string>& neutral_keys() {
  static const std::set<std::string> keys = {"r",
                                             "lora_alpha",
                                             "rank_pattern",
                                             "alpha_pattern",
                                             "use_rslora",
                                             "task_type",
                                             "target_modules",
                                             "lora_dropout",
                                             "exclude_modules",
                                             "base_model_name_or_path",
                                             "revision",
                                             "auto_mapping",
                                             "peft_version",
                                             "inference_mode",
                                             "layers_to_transform",
                                             "megatron_core",
                                             "layers_pattern",
                                             "megatron_config",
                                             "eva_config",
                                             "qalora_group_size",
                                             "ensure_weight_tying",
                                             "runtime_config"};
  return keys;
}

// Settings under which A and B alone do not say what the layer computes.
const std::set<std::string>& unsupported_keys() {
  static const std::set<std::string> keys = {"use_dora",          "lora_bias",        "fan_in_fan_out",
                                             "modules_to_save",   "use_qalora",       "use_bdlora",
                                             "layer_replication", "corda_config",     "trainable_token_indices",
                                             "arrow_config",      "lora_ga_config",   "velora_config",
                                             "kasa_config",       "loftq_config",     "alora_invocation_tokens",
                                             "target_parameters", "monteclora_config"};
  return keys;
}

bool is_plain_initialisation(const Json& value) {
  if (value.is_boolean()) return true;
  return value == "gaussian" || value == "eva" || value == "orthogonal";
}

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// PEFT's rule for pattern keys: the regular expression must match the path, or its tail after a dot, to the end.
std::shared_ptr<const void> compile_pattern(const std::string& pattern, const std::string& where) {
  const std::string anchored = "^(.*\\.)?(" + pattern + ")$";
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(anchored.data()), anchored.size(), 0, &error, &offset, nullptr);
  check_input(code != nullptr, where, ": '", pattern, "' is no regular expression");
  return {code, [](pcre2_code* compiled) { pcre2_code_free(compiled); }};
}

bool pattern_matches(const void* regex, const std::string& path) {
  constexpr uint32_t kMatchLimit = 100000;  // an expression from a file must not hang the program
  const auto* code = static_cast<const pcre2_code*>(regex);
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(pcre2_match_data_create_from_pattern(code, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeContext> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchLimit);
  return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(path.data()), path.size(), 0, 0, data.get(), context.get()) >=
         0;
}

double number(const Json& value, const std::string& key, const std::string& where) {
  check_input(value.is_number() && std::isfinite(value.get<double>()), where, ": '", key, "' must be a number, found ",
              value.dump());
  return value.get<double>();
}

// An integer where it is one, as Python would print it.
Json number_json(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

double most_common(const std::vector<double>& values) {
  std::map<double, int> counts;
  for (const double value : values) ++counts[value];
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

Json patterns_json(const std::vector<DescribedLayer>& entries, const std::vector<double>& values, double common) {
  Json patterns = Json::object();
  for (size_t i = 0; i < entries.size(); ++i) {
    if (values[i] == common) continue;
    std::string escaped = "^";
    for (const char c : entries[i].path) escaped += c == '.' ? "\\." : std::string(1, c);
    patterns[escaped] = number_json(values[i]);
  }
  return patterns;
}

}  // namespace

LoraDescription::LoraDescription(const Json& description, const std::string& component, const std::string& where)
    : where_(where + ": " + kLoraMetadataKey) {
  check_input(description.is_object(), where_, " must be a JSON object, found ", description.type_name());
  const std::string prefix = component.empty() ? "" : component + ".";
  for (const auto& [full_key, value] : description.items()) {
    if (!full_key.starts_with(prefix)) continue;
    const std::string key = full_key.substr(prefix.size());
    present_ = true;
    check_input(!is_set(value) || !unsupported_keys().contains(key), where_, ": '", full_key, "' = ", value.dump(),
                " is not supported");
    if (key == "peft_type") {
      check_input(value.is_null() || value == "LORA", where_, ": '", full_key, "' = ", value.dump(),
                  " is not supported; it must be \"LORA\"");
    } else if (key == "bias") {
      check_input(value.is_null() || value == "none", where_, ": '", full_key, "' = ", value.dump(),
                  " is not supported; it must be \"none\"");
    } else if (key == "init_lora_weights") {
      check_input(value.is_null() || is_plain_initialisation(value), where_, ": '", full_key, "' = ", value.dump(),
                  " changes the base weights, which is not supported");
    } else if (is_set(value) && !neutral_keys().contains(key) && !unsupported_keys().contains(key)) {
      log_warn(where_, ": '", full_key, "' = ", value.dump(), " is not known and has no effect");
    }
    if (key == "r") rank_ = number(value, full_key, where_);
    if (key == "lora_alpha") alpha_ = number(value, full_key, where_);
    if (key == "use_rslora") rank_stabilised_ = is_set(value);
    if (key == "rank_pattern") read_patterns(value, full_key, rank_patterns_);
    if (key == "alpha_pattern") read_patterns(value, full_key, alpha_patterns_);
    if (key == "target_modules" && value.is_string()) target_modules_ = {value.get<std::string>()};
    if (key == "target_modules" && value.is_array()) {
      for (const auto& name : value) {
        if (name.is_string()) target_modules_.push_back(name.get<std::string>());
      }
    }
  }
}

void LoraDescription::read_patterns(const Json& description, const std::string& key,
                                    std::vector<Pattern>& patterns) const {
  if (description.is_null()) return;
  check_input(description.is_object(), where_, ": '", key, "' must be an object, found ", description.dump());
  for (const auto& [regex, value] : description.items()) {
    patterns.push_back({compile_pattern(regex, where_), number(value, regex, where_)});
  }
}

const LoraDescription::Pattern* LoraDescription::first_match(const std::vector<Pattern>& patterns,
                                                             const std::string& path) {
  for (const auto& pattern : patterns) {
    if (pattern_matches(pattern.regex.get(), path)) return &pattern;
  }
  return nullptr;
}

double LoraDescription::alpha(const std::string& path, int64_t rank) const {
  if (!present_) return static_cast<double>(rank);
  const Pattern* rank_pattern = first_match(rank_patterns_, path);
  const double described = rank_pattern ? rank_pattern->value : rank_.value_or(static_cast<double>(rank));
  check_input(described == static_cast<double>(rank), where_, ": says rank ", described, " for ", path,
              ", its tensors have rank ", rank);
  const Pattern* alpha_pattern = first_match(alpha_patterns_, path);
  const double alpha = alpha_pattern ? alpha_pattern->value : alpha_;
  return rank_stabilised_ ? alpha * std::sqrt(static_cast<double>(rank)) : alpha;
}

Json describe_adapter(const LoraAdapter& adapter, const std::string& component) {
  std::vector<DescribedLayer> layers;
  for (const auto& entry : adapter.entries()) layers.push_back({entry.path, entry.rank(), entry.alpha});
  return describe_layers(layers, adapter.config().target_modules, component);
}

Json describe_layers(const std::vector<DescribedLayer>& layers, std::vector<std::string> targets,
                     const std::string& component) {
  std::vector<double> ranks, alphas;
  for (const auto& layer : layers) {
    ranks.push_back(static_cast<double>(layer.rank));
    alphas.push_back(layer.alpha);
  }
  const double rank = most_common(ranks);
  const double alpha = most_common(alphas);
  std::sort(targets.begin(), targets.end());
  const Json config = {{"alpha_pattern", patterns_json(layers, alphas, alpha)},
                       {"auto_mapping", nullptr},
                       {"base_model_name_or_path", nullptr},
                       {"bias", "none"},
                       {"exclude_modules", nullptr},
                       {"fan_in_fan_out", false},
                       {"inference_mode", false},
                       {"init_lora_weights", "gaussian"},
                       {"layer_replication", nullptr},
                       {"layers_pattern", nullptr},
                       {"layers_to_transform", nullptr},
                       {"loftq_config", Json::object()},
                       {"lora_alpha", number_json(alpha)},
                       {"lora_bias", false},
                       {"lora_dropout", 0.0},
                       {"megatron_config", nullptr},
                       {"megatron_core", "megatron.core"},
                       {"modules_to_save", nullptr},
                       {"peft_type", "LORA"},
                       {"r", number_json(rank)},
                       {"rank_pattern", patterns_json(layers, ranks, rank)},
                       {"revision", nullptr},
                       {"target_modules", targets},
                       {"task_type", nullptr},
                       {"use_dora", false},
                       {"use_rslora", false}};
  Json description = Json::object();
  for (const auto& [key, value] : config.items()) description[component.empty() ? key : component + "." + key] = value;
  return description;
}

}  // namespace prefusion::nn

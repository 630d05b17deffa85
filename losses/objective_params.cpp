#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "losses/edit_distance.h"
#include "losses/registry.h"

namespace prefusion::losses {
namespace {

// The shortest text that reads back as the same number.
std::string number_text(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

double parse_number(std::string_view text, const std::string& what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check_usage(error == std::errc() && end == text.data() + text.size() && std::isfinite(value), what, ": '", text,
              "' is not a number");
  return value;
}

std::string joined(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

const ObjectiveParameter& find_parameter(const ObjectiveInfo& info, std::string_view name) {
  std::vector<std::string> names;
  for (const auto& parameter : info.parameters) {
    if (parameter.name == name) return parameter;
    names.push_back(parameter.name);
  }
  check_usage(name != "beta" && name != "kappa", "--objective-args ", name, ": give it as --", name);
  check_usage(!names.empty(), "--objective-args ", name, ": objective ", info.name, " has no parameters of its own");
  fail_usage("--objective-args ", name, ": objective ", info.name, " has no such parameter; did you mean '",
             nearest_name(name, names), "'? It has ", joined(names, ", "));
}

double checked_strength(double value, const char* flag) {
  check_usage(std::isfinite(value) && value > 0, flag, " ", value, ": must be a positive number");
  return value;
}

double resolve_kappa(const ObjectiveInfo& info, std::optional<double> beta, std::optional<double> kappa) {
  check_usage(!(beta && kappa), "--beta and --kappa set the same number; give one of them");
  if (kappa) return checked_strength(*kappa, "--kappa");
  return info.kappa_per_beta * (beta ? checked_strength(*beta, "--beta") : info.default_beta);
}

void set_default(const ObjectiveParameter& parameter, ObjectiveParams& params) {
  if (parameter.is_choice()) {
    params.choices[parameter.name] = parameter.choices.front();
  } else {
    params.values[parameter.name] = parameter.default_value;
  }
}

void set_parameter(const ObjectiveParameter& parameter, std::string_view text, ObjectiveParams& params) {
  const std::string what = "--objective-args " + parameter.name;
  if (parameter.is_choice()) {
    check_usage(std::ranges::find(parameter.choices, text) != parameter.choices.end(), what, ": unknown '", text,
                "'; did you mean '", nearest_name(text, parameter.choices), "'? It is one of ",
                joined(parameter.choices, ", "));
    params.choices[parameter.name] = text;
    return;
  }
  const double value = parse_number(text, what);
  check_usage(value >= parameter.min && value <= parameter.max, what, ": ", value, " is out of range, expected ",
              number_text(parameter.min), " to ", number_text(parameter.max));
  check_usage(!parameter.is_whole || value == std::floor(value), what, ": ", value, " is not a whole number");
  params.values[parameter.name] = value;
}

void parse_args(const ObjectiveInfo& info, std::string_view args, ObjectiveParams& params) {
  std::map<std::string, bool> given;
  if (trimmed(args).empty()) return;
  while (true) {
    const size_t comma = args.find(',');
    const std::string_view item = trimmed(args.substr(0, comma));
    const size_t equals = item.find('=');
    check_usage(equals != std::string_view::npos && equals > 0, "--objective-args: '", item,
                "' is not of the form name=value");
    const std::string name(trimmed(item.substr(0, equals)));
    const ObjectiveParameter& parameter = find_parameter(info, name);
    check_usage(!given[name], "--objective-args ", name, ": given twice");
    given[name] = true;
    set_parameter(parameter, trimmed(item.substr(equals + 1)), params);
    if (comma == std::string_view::npos) return;
    args.remove_prefix(comma + 1);
  }
}

// "kappa 2500 (beta 5000)", empty where there is none.
std::string kappa_text(const ObjectiveInfo& info, const ObjectiveParams& params) {
  if (!info.has_kappa()) return "";
  return concat("kappa ", number_text(params.kappa), " (beta ", number_text(params.kappa / info.kappa_per_beta), ")");
}

// Every parameter but kappa as text, by name.
std::map<std::string, std::string> parameter_texts(const ObjectiveParams& params) {
  std::map<std::string, std::string> texts = params.choices;
  for (const auto& [name, value] : params.values) texts[name] = number_text(value);
  return texts;
}

std::string parameter_list(std::string text, const std::map<std::string, std::string>& parameters) {
  for (const auto& [name, value] : parameters) text += (text.empty() ? "" : ", ") + name + " " + value;
  return text.empty() ? "no parameters" : text;
}

// What the table says of the parameters: kappa and numbers with their defaults, all words of a choice.
std::string default_text(const ObjectiveInfo& info) {
  const ObjectiveParams params = resolve_params(info, "", std::nullopt, std::nullopt);
  std::map<std::string, std::string> parameters = parameter_texts(params);
  for (const auto& parameter : info.parameters) {
    if (parameter.is_choice()) parameters[parameter.name] = joined(parameter.choices, "|");
  }
  return parameter_list(kappa_text(info, params), parameters);
}

// "no", "yes" or the reference it wants of its own.
std::string reference_text(const ObjectiveInfo& info) {
  if (!info.needs_reference) return "no";
  return info.default_reference.empty() ? "yes" : info.default_reference;
}

// What it needs besides errors and labels, "-" for nothing.
std::string needs_text(const ObjectiveInfo& info) {
  std::vector<std::string> needs;
  if (info.latent_source != LatentSource::kForwardNoise) needs.push_back(latent_source_name(info.latent_source));
  if (info.needs_drift) needs.push_back("drift");
  if (info.needs_residual_dot) needs.push_back("residual products");
  if (info.needs_prompt_distance) needs.push_back("prompt distances");
  if (info.needs_scores) needs.push_back("scores");
  if (info.needs_item_prompts) needs.push_back("item prompts");
  if (info.needs_mask) needs.push_back("masks");
  if (info.needs_users) needs.push_back("users");
  if (info.fuses_experts) needs.push_back("experts");
  return needs.empty() ? "-" : joined(needs, ", ");
}

}  // namespace

ObjectiveParams resolve_params(const ObjectiveInfo& info, std::string_view args, std::optional<double> beta,
                               std::optional<double> kappa) {
  ObjectiveParams params;
  if (info.has_kappa()) {
    params.kappa = resolve_kappa(info, beta, kappa);
  } else {
    std::vector<std::string> own;
    for (const auto& parameter : info.parameters) own.push_back(parameter.name);
    check_usage(!beta && !kappa, beta ? "--beta" : "--kappa", ": objective ", info.name, " has no kappa",
                own.empty() ? "" : "; its parameters are ", joined(own, ", "));
  }
  for (const auto& parameter : info.parameters) set_default(parameter, params);
  parse_args(info, args, params);
  return params;
}

std::string describe_params(const ObjectiveInfo& info, const ObjectiveParams& params) {
  return parameter_list(kappa_text(info, params), parameter_texts(params));
}

std::map<std::string, std::string> params_metadata(const ObjectiveParams& params) {
  std::map<std::string, std::string> metadata = parameter_texts(params);
  if (!std::isnan(params.kappa)) metadata["kappa"] = number_text(params.kappa);
  return metadata;
}

std::string objective_table() {
  std::vector<std::vector<std::string>> rows = {
      {"name", "data", "reference", "needs", "parameters", "paper", "what it is"}};
  for (const ObjectiveInfo* info : listed_objectives()) {
    rows.push_back({info->name, data_kind_name(info->data), reference_text(*info), needs_text(*info),
                    default_text(*info), info->paper, info->summary});
  }
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], row[column].size());
  }
  std::string table;
  for (const auto& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      table += row[column];
      table += column + 1 == row.size() ? "\n" : std::string(widths[column] - row[column].size() + 2, ' ');
    }
  }
  return table;
}

}  // namespace prefusion::losses

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

const ObjectiveParameter& find_parameter(const ObjectiveInfo& info, std::string_view name) {
  std::vector<std::string> names;
  for (const auto& parameter : info.parameters) {
    if (parameter.name == name) return parameter;
    names.push_back(parameter.name);
  }
  check_usage(name != "beta" && name != "kappa", "--objective-args ", name, ": give it as --", name);
  check_usage(!names.empty(), "--objective-args ", name, ": objective ", info.name, " has no parameters of its own");
  std::string known;
  for (const auto& other : names) known += (known.empty() ? "" : ", ") + other;
  fail_usage("--objective-args ", name, ": objective ", info.name, " has no such parameter; did you mean '",
             nearest_name(name, names), "'? It has ", known);
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

void parse_args(const ObjectiveInfo& info, std::string_view args, std::map<std::string, double>& values) {
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
    const double value = parse_number(trimmed(item.substr(equals + 1)), "--objective-args " + name);
    check_usage(value >= parameter.min && value <= parameter.max, "--objective-args ", name, ": ", value,
                " is out of range, expected ", number_text(parameter.min), " to ", number_text(parameter.max));
    values[name] = value;
    if (comma == std::string_view::npos) return;
    args.remove_prefix(comma + 1);
  }
}

}  // namespace

ObjectiveParams resolve_params(const ObjectiveInfo& info, std::string_view args, std::optional<double> beta,
                               std::optional<double> kappa) {
  ObjectiveParams params;
  if (info.has_kappa()) {
    params.kappa = resolve_kappa(info, beta, kappa);
  } else {
    std::string own;
    for (const auto& parameter : info.parameters)
      own += (own.empty() ? "; its parameters are " : ", ") + parameter.name;
    check_usage(!beta && !kappa, beta ? "--beta" : "--kappa", ": objective ", info.name, " has no kappa", own);
  }
  for (const auto& parameter : info.parameters) params.values[parameter.name] = parameter.default_value;
  parse_args(info, args, params.values);
  return params;
}

std::string describe_params(const ObjectiveInfo& info, const ObjectiveParams& params) {
  std::string text;
  if (info.has_kappa()) {
    text = concat("kappa ", number_text(params.kappa), " (beta ", number_text(params.kappa / info.kappa_per_beta), ")");
  }
  for (const auto& [name, value] : params.values) text += (text.empty() ? "" : ", ") + name + " " + number_text(value);
  return text.empty() ? "no parameters" : text;
}

std::map<std::string, std::string> params_metadata(const ObjectiveParams& params) {
  std::map<std::string, std::string> metadata;
  if (!std::isnan(params.kappa)) metadata["kappa"] = number_text(params.kappa);
  for (const auto& [name, value] : params.values) metadata[name] = number_text(value);
  return metadata;
}

std::string objective_table() {
  std::vector<std::vector<std::string>> rows = {{"name", "data", "reference", "parameters", "paper", "what it is"}};
  for (const Objective& objective : objectives()) {
    const ObjectiveInfo& info = objective.info;
    const std::string parameters = describe_params(info, resolve_params(info, "", std::nullopt, std::nullopt));
    rows.push_back({info.name, data_kind_name(info.data), info.needs_reference ? "yes" : "no", parameters, info.paper,
                    info.summary});
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

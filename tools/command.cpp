#include "tools/command.h"

#include <ATen/Parallel.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"

namespace prefusion::tools {

void add_common_options(CLI::App& app, CommonOptions& options) {
  const std::string group = "Common";
  app.add_option("--config", options.config,
                 "TOML file; every long flag is a key of the same name, the command line wins")
      ->group(group);
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str()->group(group);
  app.add_option("--dtype", options.dtype, "Precision of weights and activations: fp32, bf16 or fp16")
      ->capture_default_str()
      ->group(group);
  app.add_option("--seed", options.seed, "Seed of everything random")->capture_default_str()->group(group);
  app.add_option("--threads", options.threads, "CPU threads; 0 takes OMP_NUM_THREADS, or all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096))
      ->group(group);
  app.add_option("--log-level", options.log_level, "debug, info, warn, error or off")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--quiet", options.quiet, "No progress and no information, warnings only")->group(group);
}

void apply_common_options(const CommonOptions& options) {
  set_log_level(options.quiet ? LogLevel::kWarn : parse_log_level(options.log_level));
  // OMP_NUM_THREADS, which LibTorch obeys by itself, stands unless the flag says otherwise.
  if (options.threads > 0) {
    at::set_num_threads(options.threads);
  } else if (!std::getenv("OMP_NUM_THREADS")) {
    at::set_num_threads(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  }
  install_interrupt_handlers();
}

namespace {

// Whether the command line itself gives --key (or --key=value).
bool is_given(const std::vector<std::string>& arguments, const std::string& key) {
  for (const auto& argument : arguments) {
    if (argument == "--" + key || argument.starts_with("--" + key + "=")) return true;
  }
  return false;
}

std::string scalar_text(const toml::node& node, const std::string& where) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) {
    std::ostringstream out;
    out.precision(17);
    out << number->get();
    return out.str();
  }
  fail_usage(where, ": expected a string, a number, a boolean or a list of them");
}

void append_key(std::vector<std::string>& added, const std::string& key, const toml::node& node,
                const CLI::Option& option, const std::string& where) {
  if (const auto* flag = node.as_boolean()) {
    check_usage(option.get_expected_min() == 0, where, ": '", key, "' takes a value, not true or false");
    if (flag->get()) added.push_back("--" + key);
    return;
  }
  if (const auto* list = node.as_array()) {
    for (const auto& element : *list) added.push_back("--" + key + "=" + scalar_text(element, where + ": " + key));
    return;
  }
  added.push_back("--" + key + "=" + scalar_text(node, where + ": " + key));
}

}  // namespace

namespace {

// Where a command knows --model-config, --config may name a folder: a model's configs, not a command's.
void rename_config_folder(const CLI::App& root, std::vector<std::string>& arguments) {
  if (arguments.empty()) return;
  const auto commands = root.get_subcommands([&](const CLI::App* app) {
    return app->get_name() == arguments.front() && app->get_option_no_throw("--model-config") != nullptr;
  });
  if (commands.empty()) return;
  constexpr std::string_view kJoined = "--config=";
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool is_pair = arguments[i] == "--config" && i + 1 < arguments.size();
    if (is_pair && std::filesystem::is_directory(arguments[i + 1])) arguments[i] = "--model-config";
    if (!arguments[i].starts_with(kJoined)) continue;
    const std::string path = arguments[i].substr(kJoined.size());
    if (std::filesystem::is_directory(path)) arguments[i] = "--model-config=" + path;
  }
}

}  // namespace

std::vector<std::string> merge_config_file(const CLI::App& root, std::vector<std::string> arguments) {
  rename_config_folder(root, arguments);
  std::string path;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--config" && i + 1 < arguments.size()) path = arguments[i + 1];
    if (arguments[i].starts_with("--config=")) path = arguments[i].substr(9);
  }
  if (path.empty() || arguments.empty()) return arguments;
  const auto subcommands =
      root.get_subcommands([&](const CLI::App* app) { return app->get_name() == arguments.front(); });
  if (subcommands.empty()) return arguments;
  const CLI::App* app = subcommands.front();

  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    fail_input(path, ": line ", error.source().begin.line, ": ", error.description());
  }
  std::vector<std::string> added;
  for (const auto& [name, node] : table) {
    const std::string key(name.str());
    const CLI::Option* option = app->get_option_no_throw("--" + key);
    check_usage(option != nullptr, path, ": '", key, "' is no flag of prefusion ", app->get_name());
    if (key == "config" || is_given(arguments, key)) continue;
    append_key(added, key, node, *option, path);
  }
  arguments.insert(arguments.end(), added.begin(), added.end());
  return arguments;
}

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const bool is_control = (c >= 0 && c < ' ') || c == 127;
    if (c == '"' || c == '\\') out += '\\';
    if (is_control) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// TOML is stricter than the command line: ".5", "1." and "010" are no numbers to it. As strings they read back the
// same.
bool is_toml_number(const std::string& text) {
  try {
    return toml::parse("x = " + text)["x"].is_number();
  } catch (const toml::parse_error&) {
    return false;
  }
}

std::string toml_value(const CLI::Option& option, const std::string& text) {
  const std::string type = option.get_type_name();
  const bool is_number = type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT");
  return is_number && is_toml_number(text) ? text : quoted(text);
}

// CLI11 shows the default of a list as "[a,b]" or, with a delimiter, "a b".
std::vector<std::string> split_default_list(std::string text) {
  for (char& c : text) {
    if (c == '[' || c == ']' || c == ',') c = ' ';
  }
  std::vector<std::string> values;
  std::istringstream stream(text);
  for (std::string value; stream >> value;) values.push_back(value);
  return values;
}

}  // namespace

std::string resolved_config(const CLI::App& app, const std::vector<std::string>& left_out) {
  std::string out = "# The resolved configuration of this run: prefusion " + app.get_name() + " --config run.toml\n";
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string& key = option->get_lnames().front();
    if (key == "help" || key == "config" || key == "list-objectives") continue;
    if (std::find(left_out.begin(), left_out.end(), key) != left_out.end()) continue;
    if (option->get_expected_min() == 0) {
      out += key + " = " + (option->count() && option->as<bool>() ? "true" : "false") + "\n";
    } else if (option->get_items_expected_max() > 1) {
      const auto values = option->count() ? option->results() : split_default_list(option->get_default_str());
      if (values.empty()) continue;
      out += key + " = [";
      for (const auto& value : values) out += (out.back() == '[' ? "" : ", ") + toml_value(*option, value);
      out += "]\n";
    } else {
      const std::string value = option->count() ? option->results().back() : option->get_default_str();
      if (option->count() || !value.empty()) out += key + " = " + toml_value(*option, value) + "\n";
    }
  }
  return out;
}

}  // namespace prefusion::tools

#include "reward_models/reward_spec.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

void add_arguments(std::vector<RewardSpec>& specs, const std::string& text) {
  const size_t equals = text.find('=');
  const size_t dot = text.substr(0, equals).rfind('.');
  check_usage(equals != std::string::npos && dot != std::string::npos && dot > 0, "--reward-args ", text,
              ": expected COLUMN.NAME=VALUE, for example hpsv2.antialias=off");
  const std::string column = text.substr(0, dot);
  const auto spec = std::find_if(specs.begin(), specs.end(), [&](const auto& s) { return s.column == column; });
  check_usage(spec != specs.end(), "--reward-args ", text, ": there is no --reward ", column);
  spec->options[text.substr(dot + 1, equals - dot - 1)] = text.substr(equals + 1);
}

}  // namespace

RewardSpec parse_reward_spec(const std::string& text) {
  const size_t equals = text.find('=');
  RewardSpec spec;
  spec.column = text.substr(0, equals);
  spec.kind = spec.column.substr(0, spec.column.find('/'));
  check_usage(!spec.kind.empty() && (equals == std::string::npos || equals + 1 < text.size()), "--reward '", text,
              "': expected KIND=PATH, for example pickscore=/models/PickScore_v1");
  if (equals != std::string::npos) spec.path = text.substr(equals + 1);
  return spec;
}

std::vector<RewardSpec> parse_reward_specs(const std::vector<std::string>& rewards,
                                           const std::vector<std::string>& arguments) {
  std::vector<RewardSpec> specs;
  for (const std::string& text : rewards) {
    RewardSpec spec = parse_reward_spec(text);
    const bool is_new =
        std::none_of(specs.begin(), specs.end(), [&](const auto& s) { return s.column == spec.column; });
    check_usage(is_new, "--reward ", spec.column, " is given twice; name one of them, ", spec.kind, "/NAME=PATH");
    specs.push_back(std::move(spec));
  }
  for (const std::string& text : arguments) add_arguments(specs, text);
  return specs;
}

std::string RewardOptions::text(const std::string& name, const std::string& fallback) {
  const auto found = left_.find(name);
  if (found == left_.end()) return fallback;
  std::string value = found->second;
  left_.erase(found);
  return value;
}

std::string RewardOptions::choice(const std::string& name, const std::vector<std::string>& choices) {
  const std::string value = text(name, choices.front());
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return value;
  std::ostringstream known;
  for (const std::string& choice : choices) known << (known.tellp() > 0 ? ", " : "") << choice;
  fail_usage("--reward-args ", spec_.column, ".", name, "=", value, ": expected one of ", known.str());
}

double RewardOptions::number(const std::string& name, double fallback) {
  const std::string value = text(name, "");
  if (value.empty()) return fallback;
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  check_usage(error == std::errc() && end == value.data() + value.size(), "--reward-args ", spec_.column, ".", name,
              "=", value, ": expected a number");
  return number;
}

void RewardOptions::finish() const {
  std::ostringstream unknown;
  for (const auto& [name, value] : left_) unknown << (unknown.tellp() > 0 ? ", " : "") << name;
  check_usage(left_.empty(), "--reward ", spec_.column, " has no argument ", unknown.str());
}

}  // namespace prefusion::reward_models

#include "layouts/key_map.h"

namespace prefusion::layouts {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// What the placeholders of `pattern` stand for in `name`, or nothing when it does not fit.
std::optional<std::vector<std::string_view>> match(std::string_view pattern, std::string_view name) {
  std::vector<std::string_view> captures;
  while (!pattern.empty()) {
    if (pattern == "*") {
      captures.push_back(name);
      return captures;
    }
    if (pattern.starts_with("{}")) {
      size_t digits = 0;
      while (digits < name.size() && is_digit(name[digits])) ++digits;
      if (digits == 0) return std::nullopt;
      captures.push_back(name.substr(0, digits));
      name.remove_prefix(digits);
      pattern.remove_prefix(2);
      continue;
    }
    if (name.empty() || name.front() != pattern.front()) return std::nullopt;
    name.remove_prefix(1);
    pattern.remove_prefix(1);
  }
  if (!name.empty()) return std::nullopt;
  return captures;
}

std::string fill(std::string_view pattern, const std::vector<std::string_view>& captures) {
  std::string name;
  size_t next = 0;
  while (!pattern.empty()) {
    if (pattern == "*" || pattern.starts_with("{}")) {
      name += captures[next++];
      pattern.remove_prefix(pattern == "*" ? 1 : 2);
    } else {
      name += pattern.front();
      pattern.remove_prefix(1);
    }
  }
  return name;
}

KeyMatch make_match(const KeyRule& rule, const std::vector<std::string_view>& captures, size_t part) {
  KeyMatch match{.rule = &rule, .original = fill(rule.original, captures), .diffusers = {}, .part = part};
  for (const auto& pattern : rule.diffusers) match.diffusers.push_back(fill(pattern, captures));
  return match;
}

}  // namespace

std::optional<KeyMatch> KeyMap::from_original(std::string_view name) const {
  for (const KeyRule& rule : rules_) {
    if (const auto captures = match(rule.original, name)) return make_match(rule, *captures, 0);
  }
  return std::nullopt;
}

std::optional<KeyMatch> KeyMap::from_diffusers(std::string_view name) const {
  for (const KeyRule& rule : rules_) {
    for (size_t part = 0; part < rule.diffusers.size(); ++part) {
      if (const auto captures = match(rule.diffusers[part], name)) return make_match(rule, *captures, part);
    }
  }
  return std::nullopt;
}

}  // namespace prefusion::layouts

#include "training/reference_spec.h"

#include <charconv>
#include <cmath>
#include <vector>

#include "core/error.h"

namespace prefusion::training {
namespace {

constexpr const char* kForms =
    "none, frozen, adapter-off, ema:DECAY, refresh:N, refresh:N:MIX, extrapolated:A or cached";

std::vector<std::string> split_at_colons(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ':') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

double number_in(const std::string& reference, const std::string& text, double low, double high, const char* range) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = error == std::errc() && end == text.data() + text.size() && std::isfinite(value);
  check_usage(is_number && value >= low && value <= high, "--reference ", reference, ": '", text, "' must be a number ",
              range);
  return value;
}

}  // namespace

ReferenceSpec parse_reference(const std::string& text) {
  const std::vector<std::string> parts = split_at_colons(text);
  const std::string& name = parts[0];
  const size_t arguments = parts.size() - 1;
  constexpr double kBelowOne = 1.0 - 1e-12;
  if (arguments == 0 && name == "none") return {.kind = ReferenceKind::kNone};
  if (arguments == 0 && name == "frozen") return {.kind = ReferenceKind::kFrozen};
  if (arguments == 0 && name == "adapter-off") return {.kind = ReferenceKind::kAdapterOff};
  if (arguments == 0 && name == "cached") return {.kind = ReferenceKind::kCached};
  if (arguments == 1 && name == "ema") {
    return {.kind = ReferenceKind::kEma, .decay = number_in(text, parts[1], 0, kBelowOne, "from 0 to below 1")};
  }
  if (arguments == 1 && name == "extrapolated") {
    return {.kind = ReferenceKind::kExtrapolated,
            .factor = number_in(text, parts[1], -1, kBelowOne, "from -1 to below 1")};
  }
  if ((arguments == 1 || arguments == 2) && name == "refresh") {
    ReferenceSpec spec{.kind = ReferenceKind::kRefresh};
    const double every = number_in(text, parts[1], 1, 1e9, "of steps, 1 or more");
    check_usage(every == std::floor(every), "--reference ", text, ": '", parts[1], "' must be a whole number of steps");
    spec.every = static_cast<int64_t>(every);
    if (arguments == 2) spec.mix = number_in(text, parts[2], 1e-9, 1, "above 0, at most 1");
    return spec;
  }
  fail_usage("--reference ", text, ": expected ", kForms);
}

}  // namespace prefusion::training

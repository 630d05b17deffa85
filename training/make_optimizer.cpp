#include "training/make_optimizer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "core/error.h"
#include "training/adamw_8bit.h"

namespace prefusion::training {
namespace {

constexpr double kSmallest = std::numeric_limits<double>::min();

// A number an optimizer can be told: its range and where it goes.
struct Setting {
  double min, max;
  bool is_switch;  // 0 or 1
  std::function<void(double)> set;
};
using Settings = std::map<std::string, Setting, std::less<>>;

Settings settings_of(OptimizerSpec& spec) {
  const auto number = [](double& value, double min, double max) {
    return Setting{min, max, /*is_switch=*/false, [&value](double given) { value = given; }};
  };
  const auto switched = [](bool& value) {
    return Setting{0, 1, /*is_switch=*/true, [&value](double given) { value = given != 0; }};
  };
  constexpr double kBelowOne = 1 - std::numeric_limits<double>::epsilon();
  if (spec.kind != OptimizerKind::kAdafactor) {
    AdamWOptions& adamw = spec.adamw;
    return {{"beta1", number(adamw.beta1, 0, kBelowOne)},
            {"beta2", number(adamw.beta2, 0, kBelowOne)},
            {"eps", number(adamw.eps, kSmallest, 1)}};
  }
  AdafactorOptions& factor = spec.adafactor;
  return {{"beta1", {0, kBelowOne, false, [&factor](double given) { factor.beta1 = given; }}},
          {"decay_rate", number(factor.decay_rate, -1, 0)},
          {"clip_threshold", number(factor.clip_threshold, kSmallest, 1e6)},
          {"eps1", number(factor.eps1, 0, 1)},
          {"eps2", number(factor.eps2, 0, 1)},
          {"scale_parameter", switched(factor.scale_parameter)},
          {"relative_step", switched(factor.relative_step)},
          {"warmup_init", switched(factor.warmup_init)}};
}

void set_one(std::string_view item, std::string_view name, const Settings& settings, std::set<std::string>& given) {
  const size_t equals = item.find('=');
  check_usage(equals != std::string_view::npos, "--optimizer-args: '", item, "' is not of the form name=value");
  const std::string key(item.substr(0, equals));
  const auto setting = settings.find(key);
  if (setting == settings.end()) {
    std::string names;
    for (const auto& [known, ignored] : settings) names += (names.empty() ? "" : ", ") + known;
    fail_usage("--optimizer-args ", key, ": ", name, " has no such parameter; it has ", names);
  }
  check_usage(given.insert(key).second, "--optimizer-args ", key, ": given twice");
  const std::string_view text = item.substr(equals + 1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check_usage(error == std::errc() && end == text.data() + text.size() && std::isfinite(value), "--optimizer-args ",
              key, ": '", text, "' is not a number");
  const auto& [min, max, is_switch, set] = setting->second;
  check_usage(!is_switch || value == 0 || value == 1, "--optimizer-args ", key, ": expected 0 or 1, found ", text);
  check_usage(value >= min && value <= max, "--optimizer-args ", key, ": ", text, " is out of range, expected ",
              min == kSmallest ? 0 : min, " to ", max);
  set(value);
}

OptimizerKind parse_kind(std::string_view name) {
  if (name == "adamw") return OptimizerKind::kAdamW;
  if (name == "adamw8bit") return OptimizerKind::kAdamW8bit;
  check_usage(name == "adafactor", "--optimizer ", name, ": expected adamw, adamw8bit or adafactor");
  return OptimizerKind::kAdafactor;
}

}  // namespace

OptimizerSpec parse_optimizer(std::string_view name, std::string_view args) {
  OptimizerSpec spec{.kind = parse_kind(name), .adamw = {}, .adafactor = {}};
  const Settings settings = settings_of(spec);
  std::set<std::string> given;
  while (!args.empty()) {
    const size_t comma = std::min(args.find(','), args.size());
    set_one(args.substr(0, comma), name, settings, given);
    args.remove_prefix(std::min(comma + 1, args.size()));
  }
  check_usage(!spec.adafactor.warmup_init || spec.adafactor.relative_step,
              "--optimizer-args warmup_init=1: it is about the optimizer's own rate, add relative_step=1");
  return spec;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, std::vector<NamedTensor> parameters,
                                          double weight_decay) {
  AdamWOptions adamw = spec.adamw;
  adamw.weight_decay = weight_decay;
  AdafactorOptions adafactor = spec.adafactor;
  adafactor.weight_decay = weight_decay;
  switch (spec.kind) {
    case OptimizerKind::kAdamW8bit: return std::make_unique<AdamW8bit>(std::move(parameters), adamw);
    case OptimizerKind::kAdafactor: return std::make_unique<Adafactor>(std::move(parameters), adafactor);
    case OptimizerKind::kAdamW: break;
  }
  return std::make_unique<AdamW>(std::move(parameters), adamw);
}

}  // namespace prefusion::training

#include "training/timestep_sampler.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>
#include <string_view>

#include "core/error.h"

namespace prefusion::training {
namespace {

constexpr double kDefaultModeScale = 1.29;

double parse_number(std::string_view text, const std::string& flag) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check_usage(error == std::errc() && end == text.data() + text.size() && std::isfinite(value), flag, ": '", text,
              "' is not a number");
  return value;
}

int64_t parse_timestep(std::string_view text, const std::string& flag, int64_t last) {
  const double value = parse_number(text, flag);
  check_usage(value == std::floor(value) && value >= 0 && value <= static_cast<double>(last), flag, ": ", text,
              " is outside the schedule's 0 .. ", last);
  return static_cast<int64_t>(value);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  while (true) {
    const size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

double sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

double mode_position(double v, double scale) {
  const double cosine = std::cos(std::numbers::pi * v / 2);
  return 1.0 - v - scale * (cosine * cosine - 1.0 + v);
}

}  // namespace

TimestepSampler TimestepSampler::parse(const std::string& sampling, const std::string& range,
                                       int64_t num_train_timesteps) {
  TimestepSampler sampler;
  sampler.high_ = num_train_timesteps;
  if (!range.empty()) {
    const std::string flag = "--timestep-range " + range;
    const auto bounds = split(range, ':');
    check_usage(bounds.size() == 2, flag, ": expected LOW:HIGH");
    sampler.low_ = parse_timestep(bounds[0], flag, num_train_timesteps - 1);
    sampler.high_ = parse_timestep(bounds[1], flag, num_train_timesteps);
    check_usage(sampler.low_ < sampler.high_, flag, ": LOW must be below HIGH");
  }
  const std::string flag = "--timestep-sampling " + sampling;
  const size_t colon = sampling.find(':');
  const std::string name = sampling.substr(0, colon);
  std::vector<double> arguments;
  if (colon != std::string::npos) {
    for (const auto part : split(std::string_view(sampling).substr(colon + 1), ',')) {
      arguments.push_back(parse_number(part, flag));
    }
  }
  if (name == "uniform" && arguments.empty()) return sampler;
  if (name == "logit-normal" && (arguments.empty() || arguments.size() == 2)) {
    sampler.kind_ = Kind::kLogitNormal;
    sampler.first_ = arguments.empty() ? 0.0 : arguments[0];
    sampler.second_ = arguments.empty() ? 1.0 : arguments[1];
    check_usage(sampler.second_ > 0, flag, ": STD must be positive");
    return sampler;
  }
  if (name == "mode" && arguments.size() <= 1) {
    sampler.kind_ = Kind::kMode;
    sampler.first_ = arguments.empty() ? kDefaultModeScale : arguments[0];
    // Outside these bounds u is not increasing in v any more ("Scaling Rectified Flow Transformers", section 3.1).
    check_usage(sampler.first_ >= -1 && sampler.first_ <= 2 / (std::numbers::pi - 2), flag,
                ": SCALE must lie in [-1, 1.75]");
    return sampler;
  }
  if (name == "list" && !arguments.empty()) {
    check_usage(range.empty(), flag, ": leave --timestep-range out with a list");
    sampler.kind_ = Kind::kList;
    for (const auto part : split(std::string_view(sampling).substr(colon + 1), ',')) {
      sampler.list_.push_back(parse_timestep(part, flag, num_train_timesteps - 1));
    }
    return sampler;
  }
  fail_usage(flag, ": expected uniform, logit-normal[:MEAN,STD], mode[:SCALE] or list:T1,T2,...");
}

TimestepSampler TimestepSampler::parse(const std::string& sampling, const std::string& range,
                                       const schedulers::NoiseSchedule& schedule) {
  TimestepSampler sampler = parse(sampling, range, schedule.num_train_timesteps());
  const auto [low, high] = schedule.timesteps_told(sampler.low_, sampler.high_);
  check_usage(low < high, "--timestep-range ", range, ": this model has no noise level there");
  sampler.low_ = low;
  sampler.high_ = high;
  for (int64_t& timestep : sampler.list_) timestep = schedule.timestep_nearest(timestep);
  return sampler;
}

int64_t TimestepSampler::draw(const DrawKey& key) const {
  CounterRng rng(key, RandomPurpose::kTimestep);
  const int64_t count = high_ - low_;
  if (kind_ == Kind::kUniform) return low_ + rng.below(count);
  if (kind_ == Kind::kList) return list_[rng.below(static_cast<int64_t>(list_.size()))];
  const double u =
      kind_ == Kind::kMode ? mode_position(rng.uniform(), first_) : sigmoid(first_ + second_ * rng.normal());
  return low_ + std::clamp<int64_t>(static_cast<int64_t>(std::floor(u * static_cast<double>(count))), 0, count - 1);
}

std::vector<int64_t> timestep_grid(int64_t num_train_timesteps, int64_t num_points) {
  std::vector<int64_t> grid;
  for (int64_t band = 0; band < num_points; ++band) {
    grid.push_back(num_train_timesteps * (2 * band + 1) / (2 * num_points));
  }
  return grid;
}

}  // namespace prefusion::training

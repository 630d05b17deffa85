#include "nn/timestep_range.h"

#include <ATen/ATen.h>

#include <charconv>

#include "core/error.h"

namespace prefusion::nn {
namespace {

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

at::Tensor TimestepRange::contains(const at::Tensor& timesteps) const {
  return at::logical_and(timesteps.ge(low), timesteps.lt(high)).to(at::kFloat);
}

std::string TimestepRange::text() const {
  return concat(low, ":", high);
}

std::optional<TimestepRange> parse_timestep_range(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto low = whole_number(text.substr(0, colon));
  const auto high = whole_number(text.substr(colon + 1));
  if (!low || !high || *low < 0 || *low >= *high) return std::nullopt;
  return TimestepRange{*low, *high};
}

}  // namespace prefusion::nn

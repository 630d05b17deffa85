#include "training/curriculum.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace prefusion::training {
namespace {

// The whole of `text` as a number, or nothing.
template <typename Number>
std::optional<Number> to_number(const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

[[noreturn]] void fail_curriculum(const std::string& text) {
  fail_usage("--curriculum ", text, ": expected margin:CHUNKS or margin:CHUNKS:MIN_GAP, such as margin:6:0.02, or ",
             "hardness:CHUNKS or hardness:CHUNKS:TIMESTEPS with 2 chunks or more, such as hardness:6");
}

}  // namespace

Curriculum Curriculum::parse(const std::string& text) {
  Curriculum curriculum;
  if (text.empty()) return curriculum;
  const size_t first = text.find(':');
  const size_t second = first == std::string::npos ? first : text.find(':', first + 1);
  const std::string kind = text.substr(0, first);
  if ((kind != "margin" && kind != "hardness") || first == std::string::npos) fail_curriculum(text);
  curriculum.order = kind == "margin" ? Order::kMargin : Order::kHardness;
  const auto chunks = to_number<int64_t>(text.substr(first + 1, second - first - 1));
  if (!chunks || *chunks < (curriculum.is_by_hardness() ? 2 : 1)) fail_curriculum(text);
  curriculum.num_chunks = *chunks;
  if (second == std::string::npos) return curriculum;
  const std::string last = text.substr(second + 1);
  if (curriculum.is_by_hardness()) {
    const auto timesteps = to_number<int64_t>(last);
    if (!timesteps || *timesteps < 1) fail_curriculum(text);
    curriculum.num_timesteps = *timesteps;
  } else {
    curriculum.min_gap = to_number<double>(last);
    if (!curriculum.min_gap || !std::isfinite(*curriculum.min_gap)) fail_curriculum(text);
  }
  return curriculum;
}

std::vector<double> margins_of(const data::PreferenceDataset& dataset) {
  std::vector<double> margins;
  for (int64_t i = 0; i < dataset.size(); ++i) margins.push_back(data::preference_margin(dataset, i));
  return margins;
}

std::vector<int64_t> groups_above_gap(const data::PreferenceDataset& dataset, double min_gap) {
  const std::vector<double> margins = margins_of(dataset);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    if (margins[i] > min_gap) kept.push_back(i);
  }
  check_input(!kept.empty(), "--curriculum: no training group has a margin above ", min_gap, "; the largest is ",
              *std::max_element(margins.begin(), margins.end()));
  return kept;
}

std::vector<int64_t> chunks_by_ease(const std::vector<double>& ease, int64_t num_chunks, const char* what) {
  const auto size = static_cast<int64_t>(ease.size());
  check_usage(num_chunks <= size, "--curriculum: ", num_chunks, " chunks of ", size, " training groups");
  std::vector<int64_t> chunks(ease.size(), 0);
  if (num_chunks == 1) return chunks;
  const auto [smallest, largest] = std::minmax_element(ease.begin(), ease.end());
  check_input(*smallest < *largest, "--curriculum: every training group has the same ", what, ", ", *largest,
              ", so none is easier than another");
  std::vector<int64_t> order(ease.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return ease[a] > ease[b]; });
  for (int64_t place = 0; place < size; ++place) chunks[order[place]] = place * num_chunks / size;
  return chunks;
}

}  // namespace prefusion::training

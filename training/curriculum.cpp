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

std::vector<double> margins_of(const data::PreferenceDataset& dataset) {
  std::vector<double> margins;
  for (int64_t i = 0; i < dataset.size(); ++i) margins.push_back(data::preference_margin(dataset, i));
  return margins;
}

}  // namespace

Curriculum Curriculum::parse(const std::string& text) {
  Curriculum curriculum;
  if (text.empty()) return curriculum;
  const auto fail = [&] {
    fail_usage("--curriculum ", text, ": expected margin:CHUNKS or margin:CHUNKS:MIN_GAP, such as margin:6:0.02");
  };
  constexpr const char* kPrefix = "margin:";
  if (!text.starts_with(kPrefix)) fail();
  std::string rest = text.substr(std::string(kPrefix).size());
  if (const size_t colon = rest.find(':'); colon != std::string::npos) {
    curriculum.min_gap = to_number<double>(rest.substr(colon + 1));
    if (!curriculum.min_gap || !std::isfinite(*curriculum.min_gap)) fail();
    rest.resize(colon);
  }
  const auto chunks = to_number<int64_t>(rest);
  if (!chunks || *chunks < 1) fail();
  curriculum.num_chunks = *chunks;
  return curriculum;
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

std::vector<int64_t> chunks_by_margin(const data::PreferenceDataset& dataset, int64_t num_chunks) {
  const int64_t size = dataset.size();
  check_usage(num_chunks <= size, "--curriculum: ", num_chunks, " chunks of ", size, " training groups");
  std::vector<int64_t> chunks(static_cast<size_t>(size), 0);
  if (num_chunks == 1) return chunks;
  const std::vector<double> margins = margins_of(dataset);
  const auto [smallest, largest] = std::minmax_element(margins.begin(), margins.end());
  check_input(*smallest < *largest, "--curriculum: every training group has the margin ", *largest,
              ", so none is easier than another; it needs scores (--score-name) or soft labels");
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return margins[a] > margins[b]; });
  for (int64_t place = 0; place < size; ++place) chunks[order[place]] = place * num_chunks / size;
  return chunks;
}

}  // namespace prefusion::training

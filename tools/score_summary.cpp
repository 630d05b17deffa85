#include "tools/score_summary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace prefusion::tools {
namespace {

constexpr size_t kNumBins = 10;
constexpr size_t kBarWidth = 40;

double quantile(const std::vector<float>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double weight = position - static_cast<double>(below);
  return static_cast<double>(sorted[below]) * (1 - weight) + static_cast<double>(sorted[above]) * weight;
}

std::string histogram(const std::vector<float>& values, const ScoreStatistics& statistics) {
  if (statistics.max <= statistics.min) return "";
  std::array<size_t, kNumBins> counts{};
  const double width = (statistics.max - statistics.min) / kNumBins;
  for (const float value : values) {
    const auto bin = static_cast<size_t>((static_cast<double>(value) - statistics.min) / width);
    ++counts[std::min(bin, kNumBins - 1)];
  }
  const size_t largest = *std::max_element(counts.begin(), counts.end());
  std::string text;
  for (size_t i = 0; i < kNumBins; ++i) {
    char border[32];
    std::snprintf(border, sizeof border, "%12.5g", statistics.min + width * static_cast<double>(i));
    const size_t length = (counts[i] * kBarWidth + largest - 1) / largest;
    text += concat(border, " |", std::string(length, '#'), std::string(kBarWidth - length, ' '), "| ", counts[i], '\n');
  }
  return text;
}

}  // namespace

ScoreStatistics score_statistics(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  ScoreStatistics statistics{.count = static_cast<int64_t>(values.size()),
                             .min = values.front(),
                             .lower_quartile = quantile(values, 0.25),
                             .median = quantile(values, 0.5),
                             .upper_quartile = quantile(values, 0.75),
                             .max = values.back()};
  const auto count = static_cast<double>(values.size());
  for (const float value : values) statistics.mean += static_cast<double>(value) / count;
  double squares = 0;
  for (const float value : values) squares += std::pow(static_cast<double>(value) - statistics.mean, 2);
  statistics.std = values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0;
  return statistics;
}

void ScoreSummary::add(const ScoreRow& row) {
  ++num_rows_;
  if (!row.error.empty() && num_bad_++ == 0) first_bad_ = concat(row.image, ": ", row.error);
  for (size_t i = 0; i < values_.size(); ++i) {
    if (row.scores[i]) values_[i].push_back(*row.scores[i]);
  }
}

std::string ScoreSummary::text() const {
  std::string text;
  for (size_t i = 0; i < rewards_.size(); ++i) {
    if (values_[i].empty()) {
      text += rewards_[i] + ": no scores\n";
      continue;
    }
    const ScoreStatistics s = score_statistics(values_[i]);
    char line[256];
    std::snprintf(line, sizeof line, ": n %lld, mean %.5g, std %.5g, min %.5g, quartiles %.5g %.5g %.5g, max %.5g\n",
                  static_cast<long long>(s.count), s.mean, s.std, s.min, s.lower_quartile, s.median, s.upper_quartile,
                  s.max);
    text += rewards_[i] + line + histogram(values_[i], s);
  }
  return text;
}

}  // namespace prefusion::tools

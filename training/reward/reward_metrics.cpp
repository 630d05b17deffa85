#include "training/reward/reward_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

namespace prefusion::training {
namespace {

double softplus(double x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

double mean_log_loss(const std::vector<PairOutcome>& outcomes, double temperature) {
  double sum = 0;
  for (const PairOutcome& o : outcomes) {
    const double gap = o.gap / temperature;
    sum += o.target * softplus(-gap) + (1 - o.target) * softplus(gap);
  }
  return outcomes.empty() ? 0 : sum / static_cast<double>(outcomes.size());
}

double credit(const PairOutcome& o) {
  if (o.gap == 0) return 0.5;
  return (o.gap > 0) == (o.target > 0.5) ? 1 : 0;
}

double credit_with_ties(const PairOutcome& o, double threshold) {
  const bool predicts_tie = std::abs(std::tanh(o.gap / 2)) <= threshold;  // p_first - p_second
  if (predicts_tie || o.is_tie()) return predicts_tie && o.is_tie() ? 1 : 0.5;
  return credit(o);
}

double expected_calibration_error(const std::vector<PairOutcome>& outcomes, double temperature) {
  struct Bin {
    double confidence = 0, outcome = 0;
  };
  constexpr size_t kBins = 10;
  std::array<Bin, kBins> bins;
  for (const PairOutcome& o : outcomes) {
    const double confidence = 1 / (1 + std::exp(-std::abs(o.gap) / temperature));  // that the higher score wins
    const auto place = std::min(kBins - 1, static_cast<size_t>((confidence - 0.5) * 2 * kBins));
    bins[place].confidence += confidence;
    bins[place].outcome += o.gap == 0 ? 0.5 : o.gap > 0 ? o.target : 1 - o.target;
  }
  double error = 0;
  for (const Bin& bin : bins) error += std::abs(bin.confidence - bin.outcome);
  return outcomes.empty() ? 0 : error / static_cast<double>(outcomes.size());
}

Interval interval_of(const std::vector<double>& values, const std::vector<int64_t>& clusters, uint64_t seed) {
  if (values.empty()) return {.value = NAN, .low = NAN, .high = NAN};
  return bootstrap_mean(values, clusters, seed);
}

// Averages within clusters; each keeps its number.
void average_within(std::vector<double>& values, std::vector<int64_t>& clusters) {
  std::map<int64_t, std::pair<double, double>> sums;
  for (size_t i = 0; i < values.size(); ++i) {
    sums[clusters[i]].first += values[i];
    sums[clusters[i]].second += 1;
  }
  values.clear();
  clusters.clear();
  for (const auto& [cluster, sum] : sums) {
    clusters.push_back(cluster);
    values.push_back(sum.first / sum.second);
  }
}

Json to_json(const Interval& interval) {
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

}  // namespace

double fit_temperature(const std::vector<PairOutcome>& outcomes) {
  if (std::all_of(outcomes.begin(), outcomes.end(), [](const PairOutcome& o) { return o.gap == 0; })) return 1;
  // The log-loss is convex in 1 / T, hence unimodal in log T: golden section.
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(1e-4), high = std::log(1e4);
  const auto loss = [&](double log_t) { return mean_log_loss(outcomes, std::exp(log_t)); };
  double a = high - ratio * (high - low), b = low + ratio * (high - low);
  double loss_a = loss(a), loss_b = loss(b);
  for (int i = 0; i < 80; ++i) {
    if (loss_a <= loss_b) {
      high = b;
      b = a, loss_b = loss_a;
      a = high - ratio * (high - low), loss_a = loss(a);
    } else {
      low = a;
      a = b, loss_a = loss_b;
      b = low + ratio * (high - low), loss_b = loss(b);
    }
  }
  return std::exp((low + high) / 2);
}

double pick_tie_threshold(const std::vector<PairOutcome>& outcomes) {
  double best = 0, best_sum = -1;
  for (int tenth = 0; tenth <= 10; ++tenth) {
    double sum = 0;
    for (const PairOutcome& o : outcomes) sum += credit_with_ties(o, tenth / 10.0);
    if (sum > best_sum) {
      best_sum = sum;
      best = tenth / 10.0;
    }
  }
  return best;
}

RewardQuality measure_quality(const std::vector<PairOutcome>& outcomes, double temperature, double tie_threshold,
                              uint64_t seed) {
  std::vector<double> credits, tie_credits;
  std::vector<int64_t> clusters, tie_clusters;
  std::set<int64_t> prompts;
  for (const PairOutcome& o : outcomes) {
    prompts.insert(o.prompt);
    tie_credits.push_back(credit_with_ties(o, tie_threshold));
    tie_clusters.push_back(o.prompt);
    if (o.is_tie()) continue;
    credits.push_back(credit(o));
    clusters.push_back(o.prompt);
  }
  RewardQuality quality{.pairs = static_cast<int64_t>(outcomes.size()),
                        .ties = static_cast<int64_t>(outcomes.size() - credits.size()),
                        .prompts = static_cast<int64_t>(prompts.size())};
  quality.accuracy = interval_of(credits, clusters, seed);
  quality.accuracy_with_ties = interval_of(tie_credits, tie_clusters, seed);
  average_within(credits, clusters);
  quality.accuracy_per_prompt = interval_of(credits, clusters, seed);
  quality.log_loss = mean_log_loss(outcomes, 1);
  quality.calibrated_log_loss = mean_log_loss(outcomes, temperature);
  quality.calibration_error = expected_calibration_error(outcomes, 1);
  quality.calibrated_calibration_error = expected_calibration_error(outcomes, temperature);
  return quality;
}

Json to_json(const RewardQuality& quality) {
  return {{"pairs", quality.pairs},
          {"ties", quality.ties},
          {"prompts", quality.prompts},
          {"accuracy", to_json(quality.accuracy)},
          {"accuracy_per_prompt", to_json(quality.accuracy_per_prompt)},
          {"accuracy_with_ties", to_json(quality.accuracy_with_ties)},
          {"log_loss", quality.log_loss},
          {"calibrated_log_loss", quality.calibrated_log_loss},
          {"calibration_error", quality.calibration_error},
          {"calibrated_calibration_error", quality.calibrated_calibration_error}};
}

}  // namespace prefusion::training

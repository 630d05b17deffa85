#include "training/paired_statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "core/statistics.h"

namespace prefusion::training {
namespace {

struct Cluster {
  double sum = 0;
  double count = 0;
};

std::vector<Cluster> gather(std::span<const double> values, std::span<const int64_t> clusters) {
  std::map<int64_t, size_t> positions;
  std::vector<Cluster> gathered;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto [entry, is_new] = positions.try_emplace(clusters[i], gathered.size());
    if (is_new) gathered.emplace_back();
    gathered[entry->second].sum += values[i];
    gathered[entry->second].count += 1;
  }
  return gathered;
}

// Linear interpolation between order statistics.
double quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Twice the smaller tail of Binomial(gained + lost, 1/2).
double mcnemar_p_value(int64_t gained, int64_t lost) {
  const auto count = static_cast<double>(gained + lost);
  double tail = 0;
  for (int64_t k = 0; k <= std::min(gained, lost); ++k) {
    const auto x = static_cast<double>(k);
    tail += std::exp(std::lgamma(count + 1) - std::lgamma(x + 1) - std::lgamma(count - x + 1) - count * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

// Correlation of the two outcomes, with Newcombe's continuity correction for positive ones.
double correlation(double both, double gained, double lost, double neither) {
  const double scale = (both + lost) * (gained + neither) * (both + gained) * (lost + neither);
  if (scale == 0) return 0;
  const double count = both + gained + lost + neither;
  double product = both * neither - gained * lost;
  if (product > 0) product = std::max(product - count / 2, 0.0);
  return product / std::sqrt(scale);
}

}  // namespace

Interval bootstrap_mean(std::span<const double> values, std::span<const int64_t> clusters, uint64_t seed,
                        int64_t num_resamples) {
  check_usage(!values.empty() && values.size() == clusters.size(), "a bootstrap needs values with a cluster each, got ",
              values.size(), " and ", clusters.size());
  const std::vector<Cluster> gathered = gather(values, clusters);
  const auto mean_of = [](const Cluster& total) { return total.sum / total.count; };
  Cluster all;
  for (const Cluster& cluster : gathered) {
    all.sum += cluster.sum;
    all.count += cluster.count;
  }
  CounterRng rng({.seed = seed}, RandomPurpose::kOther);
  std::vector<double> means(static_cast<size_t>(num_resamples));
  for (double& mean : means) {
    Cluster total;
    for (size_t i = 0; i < gathered.size(); ++i) {
      const Cluster& drawn = gathered[static_cast<size_t>(rng.below(static_cast<int64_t>(gathered.size())))];
      total.sum += drawn.sum;
      total.count += drawn.count;
    }
    mean = mean_of(total);
  }
  std::sort(means.begin(), means.end());
  return {.value = mean_of(all), .low = quantile(means, 0.025), .high = quantile(means, 0.975)};
}

PairedShares compare_shares(int64_t both, int64_t gained, int64_t lost, int64_t neither) {
  PairedShares result{.both = both, .gained = gained, .lost = lost, .neither = neither};
  const auto count = static_cast<double>(result.count());
  check_usage(count > 0, "a comparison of shares needs items");
  const Proportion after = wilson_proportion(static_cast<double>(both + gained), count);
  const Proportion before = wilson_proportion(static_cast<double>(both + lost), count);
  const double phi = correlation(static_cast<double>(both), static_cast<double>(gained), static_cast<double>(lost),
                                 static_cast<double>(neither));
  const auto reach = [phi](double a, double b) { return std::sqrt(std::max(a * a - 2 * phi * a * b + b * b, 0.0)); };
  result.difference.value = after.rate - before.rate;
  result.difference.low = result.difference.value - reach(after.rate - after.low, before.high - before.rate);
  result.difference.high = result.difference.value + reach(after.high - after.rate, before.rate - before.low);
  result.p_value = mcnemar_p_value(gained, lost);
  return result;
}

PairedShares compare_shares(std::span<const double> before, std::span<const double> after) {
  check_usage(before.size() == after.size(), "paired shares need equally many items, got ", before.size(), " and ",
              after.size());
  int64_t both = 0, gained = 0, lost = 0, neither = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const bool was = before[i] != 0, is = after[i] != 0;
    ++(was ? (is ? both : lost) : (is ? gained : neither));
  }
  return compare_shares(both, gained, lost, neither);
}

}  // namespace prefusion::training

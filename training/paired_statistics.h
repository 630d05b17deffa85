#pragma once

#include <cstdint>
#include <span>

namespace prefusion::training {

// A measured value and its 95 % interval.
struct Interval {
  double value = 0;
  double low = 0;
  double high = 0;
};

// Mean of `values` with a percentile bootstrap interval (Efron 1979). Whole clusters are drawn with replacement
// (clusters[i] is the cluster of value i, any numbers), so that several pictures of one prompt do not count as
// independent evidence. The draws are a function of `seed` alone. Usage error for no values or unequal lengths.
Interval bootstrap_mean(std::span<const double> values, std::span<const int64_t> clusters, uint64_t seed,
                        int64_t num_resamples = 2000);

// Two shares measured on the same items, before and after.
struct PairedShares {
  int64_t both = 0, gained = 0, lost = 0, neither = 0;  // right before and after, only after, only before, never
  Interval difference;                                  // after minus before
  double p_value = 1;                                   // exact McNemar test that gains and losses are equally likely

  int64_t count() const { return both + gained + lost + neither; }
};

// Counts items (nonzero is right) and compares the shares. The interval of the difference is Newcombe's hybrid score
// interval for paired data (Statistics in Medicine 17:2635, 1998, method 10), which keeps its coverage for few
// discordant pairs. Usage error for unequal lengths or none.
PairedShares compare_shares(std::span<const double> before, std::span<const double> after);
PairedShares compare_shares(int64_t both, int64_t gained, int64_t lost, int64_t neither);

}  // namespace prefusion::training

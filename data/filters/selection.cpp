#include "data/filters/selection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/rng.h"
#include "data/filters/text_diversity.h"

namespace prefusion::data::filters {
namespace {

// v -> (v - shift) / scale; a scale of 0 gives zeros.
struct Affine {
  double shift = 0;
  double scale = 1;
  double operator()(double value) const { return scale > 0 ? (value - shift) / scale : 0.0; }
};

Affine fit(const std::vector<double>& values, Normalisation normalisation) {
  if (normalisation == Normalisation::kNone || values.empty()) return {};
  if (normalisation == Normalisation::kMinMax) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return {.shift = *low, .scale = *high - *low};
  }
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  // What rounding leaves of equal values is no deviation.
  const double deviation = std::sqrt(squares / count);
  return {.shift = mean, .scale = deviation > 1e-12 * std::max(1.0, std::abs(mean)) ? deviation : 0.0};
}

std::vector<double> rank_shares(const std::vector<double>& values) {
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  if (sorted.empty() || sorted.front() == sorted.back()) return std::vector<double>(values.size(), 0.0);
  std::vector<double> shares;
  for (const double value : values) {
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), value);
    const auto below = static_cast<double>(low - sorted.begin());
    const auto equal = static_cast<double>(high - low);
    shares.push_back((below + equal / 2) / static_cast<double>(values.size()));
  }
  return shares;
}

void add_term(const std::vector<double>& values, double weight, Normalisation normalisation, std::vector<double>& sum) {
  if (weight == 0) return;
  const std::vector<double> term = normalised(values, normalisation);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * term[i];
}

// Distances of every prompt to its k nearest among the chosen ones, ascending.
class ChosenDistances {
 public:
  ChosenDistances(at::Tensor embeddings, int64_t k)
      : embeddings_(embeddings.to(at::kFloat).contiguous()), nearest_(static_cast<size_t>(embeddings.size(0))), k_(k) {}

  void choose(int64_t prompt) {
    const at::Tensor distances =
        (embeddings_ - embeddings_[prompt]).norm(2, {1}).to(at::kDouble).clamp_min(kLeastDistance).contiguous();
    for (size_t i = 0; i < nearest_.size(); ++i) {
      std::vector<double>& own = nearest_[i];
      own.insert(std::upper_bound(own.begin(), own.end(), distances.data_ptr<double>()[i]),
                 distances.data_ptr<double>()[i]);
      if (static_cast<int64_t>(own.size()) > k_) own.pop_back();
    }
  }

  // The k-th, or the farthest of fewer.
  double log_distance(int64_t prompt) const { return std::log(nearest_[prompt].back()); }

 private:
  at::Tensor embeddings_;
  std::vector<std::vector<double>> nearest_;
  int64_t k_;
};

}  // namespace

int64_t KeepCount::of(int64_t total) const {
  if (fraction < 0) return count;
  return static_cast<int64_t>(std::llround(fraction * static_cast<double>(total)));
}

KeepCount parse_keep(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const std::string rest = end;
  if (end != text.c_str() && std::isfinite(value) && value > 0) {
    if (rest.empty() && value == std::floor(value) && value < 1e15) return {.count = static_cast<int64_t>(value)};
    if (rest == "%" && value <= 100) return {.fraction = value / 100};
  }
  fail_usage("'", text, "' says not how many groups to keep: give a count such as 500 or a share such as 5%");
}

Normalisation parse_normalisation(const std::string& name) {
  if (name == "zscore") return Normalisation::kZScore;
  if (name == "minmax") return Normalisation::kMinMax;
  if (name == "rank") return Normalisation::kRank;
  check_usage(name == "none", "unknown normalisation '", name, "', expected zscore, minmax, rank or none");
  return Normalisation::kNone;
}

std::vector<double> normalised(const std::vector<double>& values, Normalisation normalisation) {
  if (normalisation == Normalisation::kRank) return rank_shares(values);
  const Affine map = fit(values, normalisation);
  std::vector<double> out;
  for (const double value : values) out.push_back(map(value));
  return out;
}

std::vector<double> importance(const ImportanceTerms& terms, const ImportanceOptions& options) {
  std::vector<double> sum(terms.quality.size(), 0.0);
  add_term(terms.margin, options.margin_weight, options.normalisation, sum);
  add_term(terms.quality, options.quality_weight, options.normalisation, sum);
  add_term(terms.diversity, options.diversity_weight, options.normalisation, sum);
  return sum;
}

std::vector<int64_t> top(const std::vector<double>& values, int64_t count) {
  std::vector<int64_t> places(values.size());
  std::iota(places.begin(), places.end(), int64_t{0});
  std::stable_sort(places.begin(), places.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  places.resize(static_cast<size_t>(std::min<int64_t>(count, static_cast<int64_t>(places.size()))));
  std::sort(places.begin(), places.end());
  return places;
}

std::vector<int64_t> greedy(const ImportanceTerms& terms, const std::vector<int64_t>& prompts,
                            const at::Tensor& embeddings, int64_t count, const ImportanceOptions& options) {
  check_usage(options.normalisation != Normalisation::kRank,
              "greedy selection needs a normalisation other than rank: distances change as it goes");
  ImportanceOptions fixed = options;
  fixed.diversity_weight = 0;
  const std::vector<double> base = importance(terms, fixed);
  const Affine scale = fit(terms.diversity, options.normalisation);
  const auto total = static_cast<int64_t>(base.size());
  ChosenDistances distances(embeddings, options.neighbours);
  std::vector<bool> is_chosen(base.size());
  std::vector<int64_t> chosen;
  while (static_cast<int64_t>(chosen.size()) < std::min(count, total)) {
    throw_if_interrupted();
    int64_t best = -1;
    double best_value = -std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < total; ++i) {
      if (is_chosen[i]) continue;
      double value = base[i];
      if (!chosen.empty()) value += options.diversity_weight * scale(distances.log_distance(prompts[i]));
      if (best >= 0 && value <= best_value) continue;
      best = i;
      best_value = value;
    }
    is_chosen[best] = true;
    chosen.push_back(best);
    distances.choose(prompts[best]);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<int64_t> random_places(int64_t total, int64_t count, uint64_t seed) {
  std::vector<int64_t> places = random_permutation(total, DrawKey{.seed = seed}, RandomPurpose::kSample);
  places.resize(static_cast<size_t>(std::min(count, total)));
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace prefusion::data::filters

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "data/filters/rule.h"

// Which groups are the best few: FiFA (arXiv 2410.10166) and its control arm.
namespace prefusion::data::filters {

// "500" or "12.5%". Usage error otherwise.
struct KeepCount {
  int64_t count = 0;
  double fraction = -1;  // of the groups that were read; negative: the count
  int64_t of(int64_t total) const;
};
KeepCount parse_keep(const std::string& text);

enum class Normalisation { kZScore, kMinMax, kRank, kNone };
Normalisation parse_normalisation(const std::string& name);

// A term on a scale of its own, comparable with others: zscore (v - mean) / deviation; minmax to [0, 1]; rank: the
// share of values that are smaller, equal ones counting half; none. Values that are all equal give zeros but with none.
std::vector<double> normalised(const std::vector<double>& values, Normalisation normalisation);

// The terms of FiFA's importance score and their factors. Its paper has the sum and the top K; the factors, k and the
// normalisation are options here.
struct ImportanceOptions {
  double margin_weight = 1;
  double quality_weight = 1;
  double diversity_weight = 1;
  Normalisation normalisation = Normalisation::kZScore;
  int64_t neighbours = 10;  // k
};

// Facts of every candidate, all of one length.
struct ImportanceTerms {
  std::vector<double> margin;  // kMissing where it has none
  std::vector<double> quality;
  std::vector<double>
      diversity;  // log of the distance of its prompt to its k-th neighbour among the candidates' prompts
};

// The weighted sum of the normalised terms; a term whose weight is 0 is not looked at.
std::vector<double> importance(const ImportanceTerms& terms, const ImportanceOptions& options);

// The places of the `count` largest values, in order of place; of equal values the first places.
std::vector<int64_t> top(const std::vector<double>& values, int64_t count);

// Groups one after the other, each the best given those before: margin and quality as importance() has them, diversity
// the log distance to its k-th nearest prompt among the chosen groups (the farthest while there are fewer than k), on
// the scale that `terms.diversity` has over all candidates. A prompt that is chosen already is kLeastDistance away.
// Places in order of place. prompts: the row of `embeddings` [P, D] of every candidate.
std::vector<int64_t> greedy(const ImportanceTerms& terms, const std::vector<int64_t>& prompts,
                            const at::Tensor& embeddings, int64_t count, const ImportanceOptions& options);

// `count` places of `total`, drawn by `seed`, in order of place.
std::vector<int64_t> random_places(int64_t total, int64_t count, uint64_t seed);

}  // namespace prefusion::data::filters

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace prefusion::data::filters {

// Embeddings of prompts without a model, fp32 [P, 512] of unit length: counts of words and of the trigrams inside them
// (each word set off by blanks), hashed to signed buckets (FNV-1a), the root of each count. Prompts that share words or
// word parts are near; meaning is not seen. The empty prompt is the zero vector.
at::Tensor hashed_ngrams(const std::vector<std::string>& prompts);

// log of the Euclidean distance of every row of [P, D] to its k-th nearest other row, fp64 [P], never below
// log(kLeastDistance): the terms of the particle estimate of entropy, whose mean over the rows is the diversity of FiFA
// (arXiv 2410.10166). k is at most P - 1; zeros for P = 1.
at::Tensor knn_log_distances(const at::Tensor& embeddings, int64_t k);

inline constexpr double kLeastDistance = 1e-6;

}  // namespace prefusion::data::filters

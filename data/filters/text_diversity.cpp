#include "data/filters/text_diversity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/interrupt.h"
#include "data/filters/words.h"

namespace prefusion::data::filters {
namespace {

constexpr int64_t kBuckets = 512;
constexpr int64_t kBlockRows = 1024;
// Neighbours are found by products of fp32 matrices, which blur small distances; so a few more are taken and their
// distances computed from differences.
constexpr int64_t kSpareNeighbours = 8;

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash ^ (hash >> 32);  // the low bits of short texts are mixed too little
}

void count(std::string_view feature, float* counts) {
  const uint64_t hash = fnv1a(feature);
  counts[hash % kBuckets] += (hash >> 60) & 1 ? 1.0f : -1.0f;
}

}  // namespace

at::Tensor hashed_ngrams(const std::vector<std::string>& prompts) {
  at::Tensor embeddings = at::zeros({static_cast<int64_t>(prompts.size()), kBuckets}, at::kFloat);
  for (size_t i = 0; i < prompts.size(); ++i) {
    float* row = embeddings.data_ptr<float>() + static_cast<int64_t>(i) * kBuckets;
    for (const std::string& word : lower_words(prompts[i])) {
      const std::string padded = ' ' + word + ' ';
      count(padded, row);
      for (size_t j = 0; j + 3 <= padded.size() && padded.size() > 3; ++j) count({padded.data() + j, 3}, row);
    }
  }
  embeddings = embeddings.sign() * embeddings.abs().sqrt();
  return embeddings / embeddings.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
}

at::Tensor knn_log_distances(const at::Tensor& embeddings, int64_t k) {
  const int64_t count = embeddings.size(0);
  check_usage(k >= 1, "at least one neighbour is needed, not ", k);
  at::Tensor logs = at::zeros({count}, at::kDouble);
  if (count < 2) return logs;
  k = std::min(k, count - 1);
  const int64_t wanted = std::min(count, k + 1 + kSpareNeighbours);  // the row itself is among them
  const at::Tensor rows = embeddings.to(at::kFloat).contiguous();
  const at::Tensor squares = rows.square().sum(1);
  for (int64_t begin = 0; begin < count; begin += kBlockRows) {
    throw_if_interrupted();
    const int64_t size = std::min(kBlockRows, count - begin);
    const at::Tensor block = rows.narrow(0, begin, size);
    at::Tensor nearness = at::addmm(squares.unsqueeze(0), block, rows.t(), /*beta=*/-0.5);  // larger is nearer
    nearness.diagonal(begin).fill_(-INFINITY);                                              // the row itself
    const at::Tensor found = std::get<1>(nearness.topk(wanted - 1, 1));                     // [size, wanted - 1]
    const at::Tensor others = rows.index_select(0, found.flatten()).view({size, wanted - 1, rows.size(1)});
    const at::Tensor distances =
        (others.to(at::kDouble) - block.unsqueeze(1).to(at::kDouble)).norm(2, {2});  // [size, wanted - 1]
    const at::Tensor kth = std::get<0>(distances.sort(1)).select(1, k - 1);
    logs.narrow(0, begin, size).copy_(kth.clamp_min(kLeastDistance).log());
  }
  return logs;
}

}  // namespace prefusion::data::filters

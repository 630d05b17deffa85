#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "kernels/attention/attention.h"
#include "kernels/parallel_for.h"

// Attention on processors that multiply pairs of bf16 into fp32 (AVX-512 BF16). Blocks of queries walk over blocks of
// keys with a running softmax ("FlashAttention-2", arXiv 2307.08691); weights are rounded to bf16 before they meet the
// values, everything else is fp32.
#if defined(__x86_64__)
// g++ takes the intrinsics' own "undefined" vectors for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#define PREFUSION_DOTS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace prefusion::kernels::detail {
namespace {

constexpr int64_t kLanes = 16;       // fp32 numbers of a vector
constexpr int64_t kQueryBlock = 48;  // a multiple of kTileRows
constexpr int64_t kKeyBlock = 512;   // scores of a block of queries stay in the second cache
constexpr int kTileRows = 6;         // with kTileVectors: sums that fit the registers
constexpr int kTileVectors = 4;
constexpr float kLowest = -1e30F;  // of keys that are not there

constexpr int64_t round_up(int64_t count, int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

// Two neighbours of a row as one 32-bit word, which is what the processor multiplies.
uint32_t pair_of(const c10::BFloat16* row, int64_t index, int64_t width) {
  const uint32_t low = row[index].x, high = index + 1 < width ? row[index + 1].x : 0U;
  return low | high << 16;
}

// Memory that is kept between blocks.
struct Workspace {
  std::vector<uint32_t> queries, weights;
  std::vector<float> scores, sums, largest, totals;
};

// One head, packed for products: pairs of channels of 16 keys beside each other, pairs of keys of all channels.
struct PackedHead {
  const uint32_t* keys;    // [padded_width / 2, padded_keys]
  const uint32_t* values;  // [padded_keys / 2, padded_width]
};

// sums [rows, 16 vectors] (+)= left [rows, pairs] right [pairs, 16 vectors].
template <int rows, int vectors>
PREFUSION_DOTS void multiply_tile(const uint32_t* left, int64_t left_stride, const uint32_t* right,
                                  int64_t right_stride, float* sums, int64_t sum_stride, int64_t pairs, bool adds) {
  __m512 accumulators[rows][vectors];
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < vectors; ++j) {
      accumulators[i][j] = adds ? _mm512_loadu_ps(sums + i * sum_stride + j * kLanes) : _mm512_setzero_ps();
    }
  }
  for (int64_t p = 0; p < pairs; ++p) {
    __m512i columns[vectors];
    for (int j = 0; j < vectors; ++j) columns[j] = _mm512_loadu_si512(right + p * right_stride + j * kLanes);
    for (int i = 0; i < rows; ++i) {
      const __m512i number = _mm512_set1_epi32(static_cast<int>(left[i * left_stride + p]));
      for (int j = 0; j < vectors; ++j) {
        accumulators[i][j] = _mm512_dpbf16_ps(accumulators[i][j], reinterpret_cast<__m512bh>(number),
                                              reinterpret_cast<__m512bh>(columns[j]));
      }
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < vectors; ++j) _mm512_storeu_ps(sums + i * sum_stride + j * kLanes, accumulators[i][j]);
  }
}

using Tile = void (*)(const uint32_t*, int64_t, const uint32_t*, int64_t, float*, int64_t, int64_t, bool);
template <int rows>
constexpr Tile kTilesOfRows[] = {multiply_tile<rows, 1>, multiply_tile<rows, 2>, multiply_tile<rows, 3>,
                                 multiply_tile<rows, 4>};
constexpr const Tile* kTiles[] = {kTilesOfRows<1>, kTilesOfRows<2>, kTilesOfRows<3>,
                                  kTilesOfRows<4>, kTilesOfRows<5>, kTilesOfRows<6>};

// The same of any size; `width` is a multiple of kLanes. Columns go in tiles of nearly equal width.
void multiply(const uint32_t* left, int64_t left_stride, const uint32_t* right, int64_t right_stride, float* sums,
              int64_t sum_stride, int64_t rows, int64_t width, int64_t pairs, bool adds) {
  const int64_t vectors = width / kLanes, tiles = (vectors + kTileVectors - 1) / kTileVectors;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = vectors * tile / tiles, count = vectors * (tile + 1) / tiles - first;
    for (int64_t row = 0; row < rows; row += kTileRows) {
      const int64_t height = std::min<int64_t>(kTileRows, rows - row);
      kTiles[height - 1][count - 1](left + row * left_stride, left_stride, right + first * kLanes, right_stride,
                                    sums + row * sum_stride + first * kLanes, sum_stride, pairs, adds);
    }
  }
}

// 2^x to a share of 3e-6, far below the rounding of the weights; 0 for what is far below. What is not a number stays
// so.
PREFUSION_DOTS inline __m512 power_of_two(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200.0F), x);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);
  // Taylor's series of exp(part ln 2), |part| <= 1/2.
  __m512 sum = _mm512_set1_ps(1.3333558e-3F);
  for (const float coefficient : {9.6181291e-3F, 5.5504109e-2F, 2.4022651e-1F, 6.9314718e-1F, 1.0F}) {
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(coefficient));
  }
  return _mm512_scalef_ps(sum, whole);
}

// A row of scores becomes weights in bf16. Its largest score and its total follow; returns what earlier sums are
// multiplied by.
PREFUSION_DOTS float weigh_row(const float* scores, uint32_t* weights, int64_t count, float scale_log2, float& largest,
                               float& total) {
  __m512 most = _mm512_set1_ps(largest);
  for (int64_t i = 0; i < count; i += kLanes) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + i));
  const float found = _mm512_reduce_max_ps(most);
  const float earlier = std::exp2((largest - found) * scale_log2);
  const __m512 scale = _mm512_set1_ps(scale_log2), base = _mm512_set1_ps(found * scale_log2);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m512 weight = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), scale, base));
    sum = _mm512_add_ps(sum, weight);
    const __m256bh rounded = _mm512_cvtneps_pbh(weight);
    std::memcpy(weights + i / 2, &rounded, sizeof(rounded));
  }
  total = total * earlier + _mm512_reduce_add_ps(sum);
  largest = found;
  return earlier;
}

PREFUSION_DOTS void multiply_row(float* row, float factor, int64_t width) {
  const __m512 factors = _mm512_set1_ps(factor);
  for (int64_t i = 0; i < width; i += kLanes)
    _mm512_storeu_ps(row + i, _mm512_mul_ps(_mm512_loadu_ps(row + i), factors));
}

// Rounds row / total, whose memory is a multiple of kLanes wide.
PREFUSION_DOTS void store_row(const float* row, float total, c10::BFloat16* to, int64_t width) {
  const __m512 totals = _mm512_set1_ps(total);
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_div_ps(_mm512_loadu_ps(row + i), totals));
    std::memcpy(to + i, &rounded, static_cast<size_t>(std::min(kLanes, width - i)) * sizeof(c10::BFloat16));
  }
}

class DotAttention {
 public:
  explicit DotAttention(const AttentionForward& tensors)
      : tensors_(tensors),
        heads_(tensors.query.size(1)),
        queries_(tensors.query.size(2)),
        keys_(tensors.key.size(2)),
        width_(tensors.query.size(3)),
        padded_width_(round_up(width_, kLanes)),
        padded_keys_(round_up(keys_, kLanes)),
        scale_log2_(static_cast<float>(std::log2(std::exp(1.0)) / std::sqrt(static_cast<double>(width_)))),
        packed_keys_(static_cast<size_t>(num_heads() * padded_width_ / 2 * padded_keys_)),
        packed_values_(static_cast<size_t>(num_heads() * padded_keys_ / 2 * padded_width_)) {}

  void run() {
    parallel_for(num_heads(), 1, [this](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) pack(head);
    });
    const int64_t blocks = (queries_ + kQueryBlock - 1) / kQueryBlock;
    parallel_for(num_heads() * blocks, 1, [this, blocks](int64_t begin, int64_t end) {
      Workspace workspace;
      workspace.queries.resize(static_cast<size_t>(kQueryBlock * padded_width_ / 2));
      workspace.weights.resize(static_cast<size_t>(kQueryBlock * kKeyBlock / 2));
      workspace.scores.resize(static_cast<size_t>(kQueryBlock * kKeyBlock));
      workspace.sums.resize(static_cast<size_t>(kQueryBlock * padded_width_));
      for (int64_t index = begin; index < end; ++index) {
        attend(index / blocks, index % blocks * kQueryBlock, workspace);
      }
    });
  }

 private:
  int64_t num_heads() const { return tensors_.query.size(0) * heads_; }

  // Where a head of a tensor begins.
  const c10::BFloat16* head_of(const at::Tensor& tensor, int64_t head) const {
    return tensor.const_data_ptr<c10::BFloat16>() + head / heads_ * tensor.stride(0) + head % heads_ * tensor.stride(1);
  }

  void pack(int64_t head) {
    const c10::BFloat16 *keys = head_of(tensors_.key, head), *values = head_of(tensors_.value, head);
    const int64_t key_stride = tensors_.key.stride(2), value_stride = tensors_.value.stride(2);
    uint32_t* to_keys = packed_keys_.data() + head * (padded_width_ / 2) * padded_keys_;
    for (int64_t key = 0; key < keys_; ++key) {
      for (int64_t p = 0; 2 * p < width_; ++p) {
        to_keys[p * padded_keys_ + key] = pair_of(keys + key * key_stride, 2 * p, width_);
      }
    }
    uint32_t* to_values = packed_values_.data() + head * (padded_keys_ / 2) * padded_width_;
    for (int64_t p = 0; 2 * p < keys_; ++p) {
      const c10::BFloat16* first = values + 2 * p * value_stride;
      const bool has_second = 2 * p + 1 < keys_;
      for (int64_t i = 0; i < width_; ++i) {
        const uint32_t second = has_second ? first[value_stride + i].x : 0U;
        to_values[p * padded_width_ + i] = first[i].x | second << 16;
      }
    }
  }

  void attend(int64_t head, int64_t first_query, Workspace& w) const {
    const PackedHead packed{packed_keys_.data() + head * (padded_width_ / 2) * padded_keys_,
                            packed_values_.data() + head * (padded_keys_ / 2) * padded_width_};
    const int64_t rows = std::min(kQueryBlock, queries_ - first_query), pairs = padded_width_ / 2;
    const c10::BFloat16* query = head_of(tensors_.query, head) + first_query * tensors_.query.stride(2);
    std::fill(w.queries.begin(), w.queries.end(), 0U);
    // A row in memory is its pairs already.
    for (int64_t row = 0; row < rows; ++row) {
      std::memcpy(w.queries.data() + row * pairs, query + row * tensors_.query.stride(2),
                  static_cast<size_t>(width_) * sizeof(c10::BFloat16));
    }
    std::fill(w.sums.begin(), w.sums.end(), 0.0F);
    w.largest.assign(kQueryBlock, kLowest);
    w.totals.assign(kQueryBlock, 0.0F);
    for (int64_t key = 0; key < padded_keys_; key += kKeyBlock) add_keys(packed, key, rows, w);
    store(head, first_query, rows, w);
  }

  void add_keys(const PackedHead& packed, int64_t first_key, int64_t rows, Workspace& w) const {
    const int64_t count = std::min(kKeyBlock, padded_keys_ - first_key), pairs = padded_width_ / 2;
    multiply(w.queries.data(), pairs, packed.keys + first_key, padded_keys_, w.scores.data(), kKeyBlock, rows, count,
             pairs, /*adds=*/false);
    for (int64_t row = 0; row < rows; ++row) {
      float* scores = w.scores.data() + row * kKeyBlock;
      if (first_key + count > keys_) std::fill(scores + keys_ - first_key, scores + count, kLowest);
      const auto i = static_cast<size_t>(row);
      const float earlier =
          weigh_row(scores, w.weights.data() + row * kKeyBlock / 2, count, scale_log2_, w.largest[i], w.totals[i]);
      if (earlier != 1.0F) multiply_row(w.sums.data() + row * padded_width_, earlier, padded_width_);
    }
    multiply(w.weights.data(), kKeyBlock / 2, packed.values + first_key / 2 * padded_width_, padded_width_,
             w.sums.data(), padded_width_, rows, padded_width_, count / 2, /*adds=*/true);
  }

  void store(int64_t head, int64_t first_query, int64_t rows, const Workspace& w) const {
    const at::Tensor& output = tensors_.output;
    c10::BFloat16* to = output.mutable_data_ptr<c10::BFloat16>() + head / heads_ * output.stride(0) +
                        head % heads_ * output.stride(1) + first_query * output.stride(2);
    for (int64_t row = 0; row < rows; ++row) {
      store_row(w.sums.data() + row * padded_width_, w.totals[static_cast<size_t>(row)], to + row * output.stride(2),
                width_);
    }
  }

  const AttentionForward& tensors_;
  int64_t heads_, queries_, keys_, width_, padded_width_, padded_keys_;
  float scale_log2_;
  std::vector<uint32_t> packed_keys_, packed_values_;
};

}  // namespace

bool has_bf16_dots() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bf16");
  return has;
}

void attention_forward_dots(const AttentionForward& tensors) {
  DotAttention(tensors).run();
}

}  // namespace prefusion::kernels::detail

#else

namespace prefusion::kernels::detail {

bool has_bf16_dots() {
  return false;
}

void attention_forward_dots(const AttentionForward&) {
  fail_run("attention: this processor does not multiply bf16");
}

}  // namespace prefusion::kernels::detail

#endif

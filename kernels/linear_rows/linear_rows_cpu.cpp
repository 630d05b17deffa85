#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu_vector.h"
#include "kernels/linear_rows/linear_rows.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

// An element is the sum of products of two rows: `kLanes` partial sums take turns along them, are added as a tree, and
// what is left over at the end of the rows follows. Rows longer than kDepth are cut there, so that a block of the input
// stays in the cache while the weight passes by; their parts are added in order. None of this depends on which rows are
// computed together.
constexpr int64_t kDepth = 1024;
constexpr int64_t kPanel = 64;       // outputs whose weights stay in the cache while rows pass by
constexpr int64_t kColumns = 4;      // outputs of a tile
constexpr int64_t kGrain = 1 << 18;  // products that are worth a thread

struct Problem {
  const float* input;
  const float* weight;
  const float* bias;
  float* output;
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
  const float* packed;  // the input once more, as pack() orders it
};

template <int kLanes>
struct Vector {
  typedef float Type __attribute__((vector_size(kLanes * sizeof(float))));
};

// The largest tile of rows of an instruction set, and its lanes.
template <int lanes, int rows>
struct Shape {
  static constexpr int kLanes = lanes;
  static constexpr int kRows = rows;
};

// Tiles of kRows rows, the last of what is left; in a tile the vectors of its rows take turns, so that a tile is read
// from end to end. What is no whole vector at the end of rows is left out.
template <typename S>
void pack(const Problem& p, float* packed) {
  const int64_t vectors = p.inputs / S::kLanes;
  for (int64_t first = 0; first < p.rows; first += S::kRows) {
    const int64_t rows = std::min<int64_t>(S::kRows, p.rows - first);
    for (int64_t vector = 0; vector < vectors; ++vector) {
      for (int64_t i = 0; i < rows; ++i) {
        std::memcpy(packed, p.input + (first + i) * p.inputs + vector * S::kLanes, S::kLanes * sizeof(float));
        packed += S::kLanes;
      }
    }
  }
}

template <typename Lanes, int kLanes>
PREFUSION_INLINE float sum_lanes(const Lanes& vector) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = vector[i];
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Adds the part of the sums from depth_begin (a multiple of the lanes) to depth_end to `output`, or begins them there.
template <typename S, int kRows, int kCols>
PREFUSION_INLINE void tile(const Problem& p, int64_t row, int64_t column, int64_t depth_begin, int64_t depth_end) {
  using Lanes = typename Vector<S::kLanes>::Type;
  Lanes sums[kRows][kCols] = {};
  const int64_t whole = p.inputs / S::kLanes * S::kLanes;
  const int64_t end = std::min(depth_end, whole);
  const float* inputs = p.packed + row * whole + depth_begin * kRows;
  const float* weights = p.weight + column * p.inputs;
  for (int64_t k = depth_begin; k < end; k += S::kLanes, inputs += kRows * S::kLanes) {
    Lanes weight[kCols];
    PREFUSION_UNROLL
    for (int j = 0; j < kCols; ++j) std::memcpy(&weight[j], weights + j * p.inputs + k, sizeof(Lanes));
    PREFUSION_UNROLL
    for (int i = 0; i < kRows; ++i) {
      Lanes input;
      std::memcpy(&input, inputs + i * S::kLanes, sizeof(Lanes));
      PREFUSION_UNROLL
      for (int j = 0; j < kCols; ++j) sums[i][j] += input * weight[j];
    }
  }
  PREFUSION_UNROLL
  for (int i = 0; i < kRows; ++i) {
    PREFUSION_UNROLL
    for (int j = 0; j < kCols; ++j) {
      float sum = sum_lanes<Lanes, S::kLanes>(sums[i][j]);
      for (int64_t rest = std::max(end, depth_begin); rest < depth_end; ++rest)
        sum += p.input[(row + i) * p.inputs + rest] * weights[j * p.inputs + rest];
      float& output = p.output[(row + i) * p.outputs + column + j];
      const float begun = depth_begin > 0 ? output : p.bias != nullptr ? p.bias[column + j] : 0.0f;
      output = begun + sum;
    }
  }
}

// A tile of less than S::kRows rows, whose number is looked for from kRows down.
template <typename S, int kRows, int kCols>
PREFUSION_INLINE void short_tile(const Problem& p, int64_t rows, int64_t row, int64_t column, int64_t begin,
                                 int64_t end) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return tile<S, kRows, kCols>(p, row, column, begin, end);
    short_tile<S, kRows - 1, kCols>(p, rows, row, column, begin, end);
  }
}

// The rows of one tile, S::kRows or less, of outputs [column, column_end): the tile stays in the nearest cache.
template <typename S, int kRows>
PREFUSION_INLINE void strip(const Problem& p, int64_t row, int64_t column, int64_t column_end, int64_t begin,
                            int64_t end) {
  for (; column + kColumns <= column_end; column += kColumns) tile<S, kRows, kColumns>(p, row, column, begin, end);
  for (; column < column_end; ++column) tile<S, kRows, 1>(p, row, column, begin, end);
}

// strip() of less than S::kRows rows, whose number is looked for from kRows down.
template <typename S, int kRows>
PREFUSION_INLINE void short_strip(const Problem& p, int64_t rows, int64_t row, int64_t column, int64_t column_end,
                                  int64_t begin, int64_t end) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return strip<S, kRows>(p, row, column, column_end, begin, end);
    short_strip<S, kRows - 1>(p, rows, row, column, column_end, begin, end);
  }
}

// Outputs [column_begin, column_end) of all rows: a panel of the weight stays in the second cache while rows pass by.
template <typename S>
PREFUSION_INLINE void columns(const Problem& p, int64_t column_begin, int64_t column_end) {
  static_assert(kDepth % S::kLanes == 0);
  for (int64_t depth = 0; depth == 0 || depth < p.inputs; depth += kDepth) {
    const int64_t depth_end = std::min(depth + kDepth, p.inputs);
    for (int64_t column = column_begin; column < column_end; column += kPanel) {
      const int64_t panel_end = std::min(column + kPanel, column_end);
      int64_t row = 0;
      for (; row + S::kRows <= p.rows; row += S::kRows) strip<S, S::kRows>(p, row, column, panel_end, depth, depth_end);
      short_strip<S, S::kRows - 1>(p, p.rows - row, row, column, panel_end, depth, depth_end);
    }
  }
}

// Tiles as large as the registers of each instruction set hold.
using Plain = Shape<4, 2>;
using Avx2 = Shape<8, 2>;
using Avx512 = Shape<16, 6>;

void columns_plain(const Problem& p, int64_t begin, int64_t end) {
  columns<Plain>(p, begin, end);
}
PREFUSION_AVX2 void columns_avx2(const Problem& p, int64_t begin, int64_t end) {
  columns<Avx2>(p, begin, end);
}
PREFUSION_AVX512 void columns_avx512(const Problem& p, int64_t begin, int64_t end) {
  columns<Avx512>(p, begin, end);
}

}  // namespace

void linear_rows_cpu(const float* input, const float* weight, const float* bias, float* output, int64_t rows,
                     int64_t inputs, int64_t outputs) {
  std::vector<float> packed(static_cast<size_t>(rows * inputs));
  const Problem problem{input, weight, bias, output, rows, inputs, outputs, packed.data()};
  fastest(pack<Plain>, pack<Avx2>, pack<Avx512>)(problem, packed.data());
  const auto run = fastest(columns_plain, columns_avx2, columns_avx512);
  const int64_t groups = (outputs + kColumns - 1) / kColumns;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, kColumns * rows * inputs));
  parallel_for(groups, grain,
               [&](int64_t begin, int64_t end) { run(problem, begin * kColumns, std::min(end * kColumns, outputs)); });
}

}  // namespace prefusion::kernels::detail

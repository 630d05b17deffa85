#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "kernels/adamw/adamw_rows.h"
#include "kernels/cpu_vector.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

// Elements that are converted to fp32 and back at a time, so that the loop between is of fp32 alone and vectorises.
constexpr int64_t kBlock = 256;
constexpr int64_t kPiece = 1 << 14;  // elements that are worth a thread

// Part of a parameter.
template <typename T, typename Real>
struct Piece {
  AdamWRow<T> row;
  int64_t begin, end;
  AdamWFactors factors;
};

template <typename T, typename Real>
PREFUSION_INLINE void step_piece(const Piece<T, Real>& piece) {
  const AdamWFactors factors = piece.factors;
  const AdamWRow<T>& row = piece.row;
  float gradients[kBlock];
  for (int64_t first = piece.begin; first < piece.end; first += kBlock) {
    const int64_t count = std::min(kBlock, piece.end - first);
    const T* gradient = row.gradient + first;
    float* __restrict__ master = row.master + first;
    float* __restrict__ exp_avg = row.exp_avg + first;
    float* __restrict__ exp_avg_sq = row.exp_avg_sq + first;
    for (int64_t i = 0; i < count; ++i) gradients[i] = static_cast<float>(gradient[i]);
    for (int64_t i = 0; i < count; ++i) {
      master[i] = adamw_element(master[i], gradients[i], exp_avg[i], exp_avg_sq[i], factors);
    }
    if (row.parameter == nullptr) continue;
    T* parameter = row.parameter + first;
    for (int64_t i = 0; i < count; ++i) parameter[i] = static_cast<T>(master[i]);
  }
}

PREFUSION_VECTOR_STEP(StepPiece, step_piece, Piece);

template <typename T, typename Real>
void step(const AdamWArgs& args) {
  const AdamWConstants constants = adamw_constants(args.settings);
  const float gradient_factor = gate_pointers(args.gate).gradient_factor();
  std::vector<Piece<T, Real>> pieces;
  for (const AdamWTensors& tensors : args.tensors) {
    const AdamWRow<T> row = adamw_row<T>(tensors);
    const AdamWFactors factors = adamw_factors(constants, gradient_factor, *row.count);
    for (int64_t begin = 0; begin < row.length; begin += kPiece) {
      pieces.push_back({row, begin, std::min(begin + kPiece, row.length), factors});
    }
  }
  const auto run = StepPiece<T, Real>::best();
  parallel_for(static_cast<int64_t>(pieces.size()), /*grain=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) run(pieces[static_cast<size_t>(i)]);
  });
}

}  // namespace

void adamw_step_cpu(const AdamWArgs& args) {
  if (gate_pointers(args.gate).is_shut()) return;
  switch (args.tensors.front().gradient.scalar_type()) {
    case at::kBFloat16: return step<at::BFloat16, float>(args);
    case at::kHalf: return step<at::Half, float>(args);
    default: return step<float, float>(args);
  }
}

}  // namespace prefusion::kernels::detail

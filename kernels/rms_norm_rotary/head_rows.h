#pragma once

#include <cmath>

#include "kernels/packet.h"
#include "kernels/rms_norm_rotary/rotary_math.h"

// The norm and turn of heads on the GPU, as plain arithmetic that tests run on the host. A warp owns a head of a token,
// its lanes take turns at the pairs of channels; the steps between which lanes add up their numbers are functions of
// their own. Sums over rows are a thread's for each channel and chunk of rows.
namespace prefusion::kernels {

constexpr int kHeadLanes = 32;

template <typename T, typename Real>
struct HeadRows {
  const T *states, *grad_output;
  T* output;  // backward the gradient of the states
  const Real* weight;
  const float *cosines, *sines;  // [tokens, width / 2], or null
  Real* rstd;                    // [rows]
  int64_t rows, width, tokens, rows_per_token;
  Real eps;

  PREFUSION_HOST_DEVICE Real sum_of_squares(int64_t row, int lane) const {
    Real sum = 0;
    for (int64_t j = 2 * lane; j < width; j += 2 * kHeadLanes) {
      const Pair<Real> pair = load(states + row * width + j);
      sum += pair.first * pair.first + pair.second * pair.second;
    }
    return sum;
  }

  // Of the sum of all lanes.
  PREFUSION_HOST_DEVICE Real rstd_of(Real total) const { return 1 / sqrt(total / static_cast<Real>(width) + eps); }

  PREFUSION_HOST_DEVICE void write(int64_t row, int lane, Real row_rstd) const {
    for (int64_t j = 2 * lane; j < width; j += 2 * kHeadLanes) {
      const auto packet = load_packet<2>(states + row * width + j);
      const Pair<Real> normed = {rms_normed(packet.values[0], row_rstd, weight[j]),
                                 rms_normed(packet.values[1], row_rstd, weight[j + 1])};
      store(output + row * width + j, turned(normed, cosine(row, j), sine(row, j)));
    }
    if (lane == 0) rstd[row] = row_rstd;
  }

  // The gradient behind the norm at channels j and j + 1: that of the output turned back.
  PREFUSION_HOST_DEVICE Pair<Real> behind_norm(int64_t row, int64_t j) const {
    return turned(load(grad_output + row * width + j), cosine(row, j), -sine(row, j));
  }

  PREFUSION_HOST_DEVICE Real product_sum(int64_t row, int lane) const {
    Real sum = 0;
    for (int64_t j = 2 * lane; j < width; j += 2 * kHeadLanes) {
      const Pair<Real> grad = behind_norm(row, j), value = load(states + row * width + j);
      sum +=
          grad.first * weight[j] * (value.first * rstd[row]) + grad.second * weight[j + 1] * (value.second * rstd[row]);
    }
    return sum;
  }

  // `total` of all lanes.
  PREFUSION_HOST_DEVICE void write_gradient(int64_t row, int lane, Real total) const {
    const Real mean_product = total / static_cast<Real>(width), row_rstd = rstd[row];
    for (int64_t j = 2 * lane; j < width; j += 2 * kHeadLanes) {
      const Pair<Real> grad = behind_norm(row, j), value = load(states + row * width + j);
      store(output + row * width + j,
            {row_rstd * (grad.first * weight[j] - value.first * row_rstd * mean_product),
             row_rstd * (grad.second * weight[j + 1] - value.second * row_rstd * mean_product)});
    }
  }

 private:
  PREFUSION_HOST_DEVICE static Pair<Real> load(const T* from) {
    const auto packet = load_packet<2>(from);
    return {static_cast<Real>(packet.values[0]), static_cast<Real>(packet.values[1])};
  }

  PREFUSION_HOST_DEVICE static void store(T* to, Pair<Real> pair) {
    Packet<T, 2> packet;
    packet.values[0] = static_cast<T>(pair.first);
    packet.values[1] = static_cast<T>(pair.second);
    store_packet(to, packet);
  }

  PREFUSION_HOST_DEVICE int64_t angle(int64_t row, int64_t j) const {
    return row / rows_per_token % tokens * (width / 2) + j / 2;
  }
  PREFUSION_HOST_DEVICE Real cosine(int64_t row, int64_t j) const {
    return cosines == nullptr ? Real(1) : static_cast<Real>(cosines[angle(row, j)]);
  }
  PREFUSION_HOST_DEVICE Real sine(int64_t row, int64_t j) const {
    return sines == nullptr ? Real(0) : static_cast<Real>(sines[angle(row, j)]);
  }
};

// The gradient of the weight: sums over rows, chunk after chunk. A thread takes two neighbouring channels.
template <typename T, typename Real>
struct HeadColumns {
  HeadRows<T, Real> heads;
  Real* partial;      // [chunks, width]
  Real* grad_weight;  // [width]
  int64_t chunk_rows, chunks;

  PREFUSION_HOST_DEVICE void add_chunk(int64_t chunk, int64_t j) const {
    Pair<Real> sums = {0, 0};
    const int64_t first = chunk * chunk_rows, left = heads.rows - first;
    for (int64_t row = first, end = first + (left < chunk_rows ? left : chunk_rows); row < end; ++row) {
      const Pair<Real> grad = heads.behind_norm(row, j);
      const auto packet = load_packet<2>(heads.states + row * heads.width + j);
      sums.first += grad.first * (static_cast<Real>(packet.values[0]) * heads.rstd[row]);
      sums.second += grad.second * (static_cast<Real>(packet.values[1]) * heads.rstd[row]);
    }
    partial[chunk * heads.width + j] = sums.first;
    partial[chunk * heads.width + j + 1] = sums.second;
  }

  // The lanes of a warp take turns at the chunks of a column.
  PREFUSION_HOST_DEVICE Real sum(int64_t column, int lane) const {
    Real sum = 0;
    for (int64_t chunk = lane; chunk < chunks; chunk += kHeadLanes) sum += partial[chunk * heads.width + column];
    return sum;
  }
};

}  // namespace prefusion::kernels

#pragma once

#include <cstdint>

#include "kernels/cpu_vector.h"
#include "kernels/group_norm/group_norm_math.h"

// A chunk of pixels of the group norm on the CPU, forward and backward, for each set of instructions. Channels are
// adjacent, so that every loop over them becomes vector instructions without changing the order of a sum.
namespace prefusion::kernels::detail {

// What the channels of an item are normalised by, and for the backward pass the means over their groups.
template <typename Real>
struct ChannelTables {
  const Real *mean, *rstd, *weight, *bias;
  const Real *mean_grad, *mean_product;

  PREFUSION_INLINE ChannelNorm<Real> at(int64_t j) const { return {mean[j], rstd[j], weight[j], bias[j]}; }
};

template <typename T, typename Real>
struct ChunkRows {
  const T *input, *shift, *grad_output;
  T* output;   // or the gradient of the input
  Real* sums;  // [2, width] or, backward, [3, width]
  int64_t rows, width;
  ChannelTables<Real> channels;
  bool with_silu;
};

// The mean of each channel over the chunk and the squares about it. Sums are of differences to the first pixel: of all
// squares about that one, its own to the mean is at most the chunk's variance times its pixels, which no digits are
// lost to.
template <typename T, typename Real>
PREFUSION_INLINE void chunk_moments(const ChunkRows<T, Real>& chunk) {
  const T* __restrict__ first = chunk.input;
  const T* __restrict__ shift = chunk.shift;
  Real* __restrict__ mean = chunk.sums;
  Real* __restrict__ squares = chunk.sums + chunk.width;
  for (int64_t j = 0; j < chunk.width; ++j) mean[j] = squares[j] = 0;
  for (int64_t row = 1; row < chunk.rows; ++row) {
    const T* __restrict__ input = chunk.input + row * chunk.width;
    for (int64_t j = 0; j < chunk.width; ++j) {
      const Real difference = shifted<Real>(input[j], shift[j]) - shifted<Real>(first[j], shift[j]);
      mean[j] += difference;
      squares[j] += difference * difference;
    }
  }
  const Real count = static_cast<Real>(chunk.rows);
  for (int64_t j = 0; j < chunk.width; ++j) {
    const Real about_mean = squares[j] - mean[j] * mean[j] / count;
    squares[j] = about_mean > 0 ? about_mean : 0;
    mean[j] = shifted<Real>(first[j], shift[j]) + mean[j] / count;
  }
}

template <typename T, typename Real>
PREFUSION_INLINE void write_row(const T* __restrict__ input, const T* __restrict__ shift, T* __restrict__ output,
                                const ChannelTables<Real>& channels, int64_t width, bool with_silu) {
  if (with_silu) {
    for (int64_t j = 0; j < width; ++j) {
      output[j] = static_cast<T>(silu_of(norm_of<T>(channels.at(j), shifted<Real>(input[j], shift[j]))));
    }
  } else {
    for (int64_t j = 0; j < width; ++j) {
      output[j] = static_cast<T>(norm_of<T>(channels.at(j), shifted<Real>(input[j], shift[j])));
    }
  }
}

template <typename T, typename Real>
PREFUSION_INLINE void write_chunk(const ChunkRows<T, Real>& chunk) {
  for (int64_t row = 0; row < chunk.rows; ++row) {
    write_row(chunk.input + row * chunk.width, chunk.shift, chunk.output + row * chunk.width, chunk.channels,
              chunk.width, chunk.with_silu);
  }
}

// The gradient behind the norm at one place.
template <typename T, typename Real>
PREFUSION_INLINE Real norm_gradient(const ChannelNorm<Real>& channel, Real value, Real grad, bool with_silu) {
  return with_silu ? before_silu(norm_of<T>(channel, value), grad) : grad;
}

template <typename T, typename Real>
PREFUSION_INLINE void add_row(const T* __restrict__ input, const T* __restrict__ shift,
                              const T* __restrict__ grad_output, Real* __restrict__ sums,
                              const ChannelTables<Real>& channels, int64_t width, bool with_silu) {
  for (int64_t j = 0; j < width; ++j) {
    const ChannelNorm<Real> channel = channels.at(j);
    const Real value = shifted<Real>(input[j], shift[j]), normalised = channel.normalised(value);
    const Real grad = norm_gradient<T>(channel, value, static_cast<Real>(grad_output[j]), with_silu);
    sums[j] += grad;
    sums[width + j] += grad * normalised;
    sums[2 * width + j] += normalised;
  }
}

template <typename T, typename Real>
PREFUSION_INLINE void chunk_gradient_sums(const ChunkRows<T, Real>& chunk) {
  for (int64_t j = 0; j < 3 * chunk.width; ++j) chunk.sums[j] = 0;
  for (int64_t row = 0; row < chunk.rows; ++row) {
    const int64_t offset = row * chunk.width;
    if (chunk.with_silu) {
      add_row(chunk.input + offset, chunk.shift, chunk.grad_output + offset, chunk.sums, chunk.channels, chunk.width,
              true);
    } else {
      add_row(chunk.input + offset, chunk.shift, chunk.grad_output + offset, chunk.sums, chunk.channels, chunk.width,
              false);
    }
  }
}

// With g the gradient behind the norm times its weight and y the normalised input: rstd (g - mean(g) - y mean(g y)).
template <typename T, typename Real>
PREFUSION_INLINE void write_gradient_row(const T* __restrict__ input, const T* __restrict__ shift,
                                         const T* __restrict__ grad_output, T* __restrict__ grad_input,
                                         const ChannelTables<Real>& channels, int64_t width, bool with_silu) {
  for (int64_t j = 0; j < width; ++j) {
    const ChannelNorm<Real> channel = channels.at(j);
    const Real value = shifted<Real>(input[j], shift[j]);
    const Real grad = norm_gradient<T>(channel, value, static_cast<Real>(grad_output[j]), with_silu) * channel.weight;
    grad_input[j] = static_cast<T>(
        channel.rstd * (grad - channels.mean_grad[j] - channel.normalised(value) * channels.mean_product[j]));
  }
}

template <typename T, typename Real>
PREFUSION_INLINE void write_chunk_gradient(const ChunkRows<T, Real>& chunk) {
  for (int64_t row = 0; row < chunk.rows; ++row) {
    const int64_t offset = row * chunk.width;
    if (chunk.with_silu) {
      write_gradient_row(chunk.input + offset, chunk.shift, chunk.grad_output + offset, chunk.output + offset,
                         chunk.channels, chunk.width, true);
    } else {
      write_gradient_row(chunk.input + offset, chunk.shift, chunk.grad_output + offset, chunk.output + offset,
                         chunk.channels, chunk.width, false);
    }
  }
}

PREFUSION_VECTOR_STEP(ChunkMoments, chunk_moments, ChunkRows);
PREFUSION_VECTOR_STEP(WriteChunk, write_chunk, ChunkRows);
PREFUSION_VECTOR_STEP(ChunkGradientSums, chunk_gradient_sums, ChunkRows);
PREFUSION_VECTOR_STEP(WriteChunkGradient, write_chunk_gradient, ChunkRows);

}  // namespace prefusion::kernels::detail

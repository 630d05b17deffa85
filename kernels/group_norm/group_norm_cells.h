#pragma once

#include <cmath>

#include "kernels/group_norm/group_norm_math.h"
#include "kernels/packet.h"

// The group norm on the GPU, as plain arithmetic that tests run on the host. A thread owns a packet of channels of a
// chunk of pixels; neighbours read neighbouring channels. Sums over chunks are taken by the lanes of a block or a warp,
// and the steps between which lanes add up their numbers are functions of their own.
namespace prefusion::kernels {

template <int kSize, typename T, typename Real>
struct GroupNormCells {
  const T *input, *shift, *weight, *bias, *grad_output;
  T* output;                // backward the gradient of the input
  const Real *mean, *rstd;  // [items, groups]
  const Real* group_means;  // [items, 2, groups], backward
  Real* partial;            // [items, chunks, 2, width]; backward [items, chunks, 3, width]
  int64_t pixels, width, groups, shift_stride, chunk_pixels, chunks;
  bool with_silu;

  // The mean of each channel over the chunk and the squares about it; sums are of differences to the first pixel.
  PREFUSION_HOST_DEVICE void measure(int64_t item, int64_t chunk, int64_t column) const {
    const int64_t count = pixels_of(chunk);
    const auto added = load_packet<kSize>(shift + item * shift_stride + column);
    const T* from = first_cell(input, item, chunk, column);
    Real base[kSize], sums[kSize], squares[kSize];
    const auto first = load_packet<kSize>(from);
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      base[i] = shifted<Real>(first.values[i], added.values[i]);
      sums[i] = squares[i] = 0;
    }
    for (int64_t pixel = 1; pixel < count; ++pixel) {
      const auto packet = load_packet<kSize>(from + pixel * width);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real difference = shifted<Real>(packet.values[i], added.values[i]) - base[i];
        sums[i] += difference;
        squares[i] += difference * difference;
      }
    }
    Real* to = partial + (item * chunks + chunk) * 2 * width + column;
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      const Real about_mean = squares[i] - sums[i] * sums[i] / static_cast<Real>(count);
      to[i] = base[i] + sums[i] / static_cast<Real>(count);
      to[width + i] = about_mean > 0 ? about_mean : 0;
    }
  }

  PREFUSION_HOST_DEVICE void write(int64_t item, int64_t chunk, int64_t column) const {
    const int64_t count = pixels_of(chunk);
    const auto added = load_packet<kSize>(shift + item * shift_stride + column);
    const T* from = first_cell(input, item, chunk, column);
    T* to = output + (from - input);
    ChannelNorm<Real> channels[kSize];
    load_channels(item, column, channels);
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      auto packet = load_packet<kSize>(from + pixel * width);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real norm = norm_of<T>(channels[i], shifted<Real>(packet.values[i], added.values[i]));
        packet.values[i] = static_cast<T>(with_silu ? silu_of(norm) : norm);
      }
      store_packet(to + pixel * width, packet);
    }
  }

  // Sums over the chunk of the gradient behind the norm, of it times the normalised input, and of that input.
  PREFUSION_HOST_DEVICE void add_gradients(int64_t item, int64_t chunk, int64_t column) const {
    const int64_t count = pixels_of(chunk);
    const auto added = load_packet<kSize>(shift + item * shift_stride + column);
    const T* from = first_cell(input, item, chunk, column);
    const T* grads_from = grad_output + (from - input);
    ChannelNorm<Real> channels[kSize];
    load_channels(item, column, channels);
    Real sums[3][kSize] = {};
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      const auto packet = load_packet<kSize>(from + pixel * width),
                 grads = load_packet<kSize>(grads_from + pixel * width);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real value = shifted<Real>(packet.values[i], added.values[i]);
        const Real grad = behind_norm(channels[i], value, grads.values[i]);
        sums[0][i] += grad;
        sums[1][i] += grad * channels[i].normalised(value);
        sums[2][i] += channels[i].normalised(value);
      }
    }
    Real* to = partial + (item * chunks + chunk) * 3 * width + column;
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      for (int which = 0; which < 3; ++which) to[which * width + i] = sums[which][i];
    }
  }

  PREFUSION_HOST_DEVICE void write_gradient(int64_t item, int64_t chunk, int64_t column) const {
    const int64_t count = pixels_of(chunk);
    const auto added = load_packet<kSize>(shift + item * shift_stride + column);
    const T* from = first_cell(input, item, chunk, column);
    const T* grads_from = grad_output + (from - input);
    T* to = output + (from - input);
    ChannelNorm<Real> channels[kSize];
    load_channels(item, column, channels);
    Real mean_grad[kSize], mean_product[kSize];
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      const Real* means = group_means + item * 2 * groups + (column + i) / (width / groups);
      mean_grad[i] = means[0];
      mean_product[i] = means[groups];
    }
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      auto packet = load_packet<kSize>(from + pixel * width);
      const auto grads = load_packet<kSize>(grads_from + pixel * width);
      PREFUSION_UNROLL
      for (int i = 0; i < kSize; ++i) {
        const Real value = shifted<Real>(packet.values[i], added.values[i]);
        const Real grad = behind_norm(channels[i], value, grads.values[i]) * channels[i].weight;
        packet.values[i] =
            static_cast<T>(channels[i].rstd * (grad - mean_grad[i] - channels[i].normalised(value) * mean_product[i]));
      }
      store_packet(to + pixel * width, packet);
    }
  }

 private:
  PREFUSION_HOST_DEVICE int64_t pixels_of(int64_t chunk) const {
    const int64_t left = pixels - chunk * chunk_pixels;
    return left < chunk_pixels ? left : chunk_pixels;
  }

  PREFUSION_HOST_DEVICE const T* first_cell(const T* tensor, int64_t item, int64_t chunk, int64_t column) const {
    return tensor + (item * pixels + chunk * chunk_pixels) * width + column;
  }

  PREFUSION_HOST_DEVICE void load_channels(int64_t item, int64_t column, ChannelNorm<Real>* channels) const {
    PREFUSION_UNROLL
    for (int i = 0; i < kSize; ++i) {
      const int64_t group = item * groups + (column + i) / (width / groups);
      channels[i] = {mean[group], rstd[group], static_cast<Real>(weight[column + i]),
                     static_cast<Real>(bias[column + i])};
    }
  }

  PREFUSION_HOST_DEVICE Real behind_norm(const ChannelNorm<Real>& channel, Real value, T grad) const {
    const Real given = static_cast<Real>(grad);
    return with_silu ? before_silu(norm_of<T>(channel, value), given) : given;
  }
};

// Mean and deviation of a group from those of its channels in every chunk; the lanes of a block take turns at them.
template <typename Real>
struct GroupMoments {
  const Real* partial;  // [items, chunks, 2, width]
  Real *mean, *rstd;    // [items, groups]
  int64_t pixels, width, groups, chunk_pixels, chunks;
  Real eps;

  PREFUSION_HOST_DEVICE Real sum(int64_t item, int64_t group, int lane, int lanes) const {
    Real sum = 0;
    for (int64_t entry = lane; entry < entries(); entry += lanes) sum += count_of(entry) * *at(item, group, entry);
    return sum;
  }

  PREFUSION_HOST_DEVICE Real sum_of_squares(int64_t item, int64_t group, int lane, int lanes, Real group_mean) const {
    Real sum = 0;
    for (int64_t entry = lane; entry < entries(); entry += lanes) {
      const Real* moments = at(item, group, entry);
      const Real difference = moments[0] - group_mean;
      sum += moments[width] + count_of(entry) * difference * difference;
    }
    return sum;
  }

  // Of the sums of all lanes.
  PREFUSION_HOST_DEVICE Real mean_of(Real total) const { return total / static_cast<Real>(pixels * channels()); }
  PREFUSION_HOST_DEVICE Real rstd_of(Real total) const {
    return 1 / sqrt(total / static_cast<Real>(pixels * channels()) + eps);
  }

 private:
  PREFUSION_HOST_DEVICE int64_t channels() const { return width / groups; }
  PREFUSION_HOST_DEVICE int64_t entries() const { return chunks * channels(); }

  PREFUSION_HOST_DEVICE Real count_of(int64_t entry) const {
    const int64_t left = pixels - entry / channels() * chunk_pixels;
    return static_cast<Real>(left < chunk_pixels ? left : chunk_pixels);
  }

  PREFUSION_HOST_DEVICE const Real* at(int64_t item, int64_t group, int64_t entry) const {
    return partial + (item * chunks + entry / channels()) * 2 * width + group * channels() + entry % channels();
  }
};

// Sums over the chunks of an item, for each of the three sums and channels; the lanes of a warp take turns.
template <typename Real>
struct GroupNormTotals {
  const Real* partial;  // [items, chunks, 3, width]
  Real* totals;         // [items, 3, width]
  int64_t width, chunks;

  // `column` of the 3 * width.
  PREFUSION_HOST_DEVICE Real sum(int64_t item, int64_t column, int lane, int lanes) const {
    Real sum = 0;
    for (int64_t chunk = lane; chunk < chunks; chunk += lanes)
      sum += partial[(item * chunks + chunk) * 3 * width + column];
    return sum;
  }
};

// From the totals the means over a group, and the gradients of its channels' shifts; on the CPU as well.
template <typename T, typename Real>
struct GroupGradients {
  const Real* totals;  // [items, 3, width]
  const T* weight;
  const Real* rstd;   // [items, groups]
  Real* group_means;  // [items, 2, groups]
  Real* grad_shift;   // [items, width]
  int64_t pixels, width, groups;

  PREFUSION_HOST_DEVICE void write(int64_t item, int64_t group) const {
    const Real *grads = totals + item * 3 * width, *products = grads + width, *norms = products + width;
    const int64_t channels = width / groups, first = group * channels;
    const Real count = static_cast<Real>(pixels * channels);
    Real grad = 0, product = 0;
    for (int64_t j = first; j < first + channels; ++j) {
      grad += static_cast<Real>(weight[j]) * grads[j];
      product += static_cast<Real>(weight[j]) * products[j];
    }
    grad /= count;
    product /= count;
    group_means[item * 2 * groups + group] = grad;
    group_means[(item * 2 + 1) * groups + group] = product;
    for (int64_t j = first; j < first + channels; ++j) {
      grad_shift[item * width + j] =
          rstd[item * groups + group] *
          (static_cast<Real>(weight[j]) * grads[j] - static_cast<Real>(pixels) * grad - norms[j] * product);
    }
  }
};

}  // namespace prefusion::kernels

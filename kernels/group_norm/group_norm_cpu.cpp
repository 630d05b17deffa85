#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/group_norm/group_norm_cells.h"
#include "kernels/group_norm/group_norm_rows_cpu.h"
#include "kernels/parallel_for.h"

namespace prefusion::kernels::detail {
namespace {

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

struct Shape {
  explicit Shape(const GroupNormArgs& args)
      : items(args.input.size(0)),
        pixels(args.input.size(1)),
        width(args.input.size(2)),
        groups(args.mean.size(1)),
        channels(width / groups),
        chunks(args.partial.size(1)) {}

  int64_t chunk_pixels(int64_t chunk) const { return std::min(kGroupNormChunk, pixels - chunk * kGroupNormChunk); }

  int64_t items, pixels, width, groups, channels /* of a group */, chunks;
};

// Per channel and item what the rows need, in the type of computation.
template <typename T, typename Real>
class Tables {
 public:
  Tables(const GroupNormArgs& args, const at::Tensor& group_means) : shape_(args) {
    const Real *mean = args.mean.const_data_ptr<Real>(), *rstd = args.rstd.const_data_ptr<Real>();
    const Real* means = group_means.defined() ? group_means.const_data_ptr<Real>() : nullptr;
    const T *weight = args.weight.const_data_ptr<T>(), *bias = args.bias.const_data_ptr<T>();
    values_.resize(static_cast<size_t>(shape_.items * kTables * shape_.width));
    for (int64_t item = 0; item < shape_.items; ++item) {
      for (int64_t j = 0; j < shape_.width; ++j) {
        const int64_t group = j / shape_.channels, index = item * shape_.groups + group;
        const int64_t of_means = item * 2 * shape_.groups + group;
        const Real row[kTables] = {mean[index],
                                   rstd[index],
                                   static_cast<Real>(weight[j]),
                                   static_cast<Real>(bias[j]),
                                   means == nullptr ? 0 : means[of_means],
                                   means == nullptr ? 0 : means[of_means + shape_.groups]};
        for (int64_t table = 0; table < kTables; ++table) values_[offset(item, table) + j] = row[table];
      }
    }
  }

  ChannelTables<Real> of(int64_t item) const {
    const auto table = [&](int64_t which) { return values_.data() + offset(item, which); };
    return {table(0), table(1), table(2), table(3), table(4), table(5)};
  }

 private:
  static constexpr int64_t kTables = 6;
  int64_t offset(int64_t item, int64_t table) const { return (item * kTables + table) * shape_.width; }

  Shape shape_;
  std::vector<Real> values_;
};

// Calls step(item, chunk, first pixel) for every chunk of every item.
template <typename Step>
void for_chunks(const Shape& shape, const Step& step) {
  const int64_t grain = std::max<int64_t>(1, kGrain / (shape.width * kGroupNormChunk));
  parallel_for(shape.items * shape.chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      step(index / shape.chunks, index % shape.chunks, index % shape.chunks * kGroupNormChunk);
    }
  });
}

// Rows of one chunk without what only some steps need.
template <typename T, typename Real>
ChunkRows<T, Real> chunk_of(const GroupNormArgs& args, const Shape& shape, int64_t item, int64_t chunk) {
  const int64_t offset = (item * shape.pixels + chunk * kGroupNormChunk) * shape.width;
  return {.input = args.input.const_data_ptr<T>() + offset,
          .shift = args.shift.const_data_ptr<T>() + item * args.shift.stride(0),
          .grad_output = nullptr,
          .output = args.output.defined() ? args.output.mutable_data_ptr<T>() + offset : nullptr,
          .sums = args.partial.mutable_data_ptr<Real>() +
                  (item * shape.chunks + chunk) * args.partial.size(2) * shape.width,
          .rows = shape.chunk_pixels(chunk),
          .width = shape.width,
          .channels = {},
          .with_silu = args.with_silu};
}

// Mean and deviation of a group from those of its channels in every chunk (Chan's formula), in double precision.
template <typename Real>
void merge_group(const GroupNormArgs& args, const Shape& shape, int64_t item, int64_t group) {
  const Real* partial =
      args.partial.const_data_ptr<Real>() + item * shape.chunks * 2 * shape.width + group * shape.channels;
  const double count = static_cast<double>(shape.pixels * shape.channels);
  double sum = 0;
  for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
    const Real* means = partial + chunk * 2 * shape.width;
    double of_chunk = 0;
    for (int64_t j = 0; j < shape.channels; ++j) of_chunk += static_cast<double>(means[j]);
    sum += of_chunk * static_cast<double>(shape.chunk_pixels(chunk));
  }
  const double mean = sum / count;
  double squares = 0;
  for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
    const Real *means = partial + chunk * 2 * shape.width, *about = means + shape.width;
    for (int64_t j = 0; j < shape.channels; ++j) {
      const double difference = static_cast<double>(means[j]) - mean;
      squares +=
          static_cast<double>(about[j]) + static_cast<double>(shape.chunk_pixels(chunk)) * difference * difference;
    }
  }
  args.mean.mutable_data_ptr<Real>()[item * shape.groups + group] = static_cast<Real>(mean);
  args.rstd.mutable_data_ptr<Real>()[item * shape.groups + group] =
      static_cast<Real>(1 / std::sqrt(squares / count + args.eps));
}

template <typename T, typename Real>
void forward(const GroupNormArgs& args) {
  const Shape shape(args);
  const auto measure = ChunkMoments<T, Real>::best();
  for_chunks(shape,
             [&](int64_t item, int64_t chunk, int64_t) { measure(chunk_of<T, Real>(args, shape, item, chunk)); });
  parallel_for(shape.items * shape.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      merge_group<Real>(args, shape, index / shape.groups, index % shape.groups);
    }
  });
  const Tables<T, Real> tables(args, {});
  const auto write = WriteChunk<T, Real>::best();
  for_chunks(shape, [&](int64_t item, int64_t chunk, int64_t) {
    auto rows = chunk_of<T, Real>(args, shape, item, chunk);
    rows.channels = tables.of(item);
    write(rows);
  });
}

// totals = the sums of an item's chunks, in order.
template <typename Real>
void add_chunks(const GroupNormGradArgs& args, const Shape& shape, int64_t item) {
  const Real* partial = args.forward.partial.const_data_ptr<Real>() + item * shape.chunks * 3 * shape.width;
  Real* totals = args.totals.mutable_data_ptr<Real>() + item * 3 * shape.width;
  for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
    for (int64_t j = 0; j < 3 * shape.width; ++j) totals[j] += partial[chunk * 3 * shape.width + j];
  }
}

template <typename T, typename Real>
void backward(const GroupNormGradArgs& args) {
  const Shape shape(args.forward);
  const auto rows_of = [&](const Tables<T, Real>& tables, int64_t item, int64_t chunk, int64_t pixel) {
    const int64_t offset = (item * shape.pixels + pixel) * shape.width;
    auto rows = chunk_of<T, Real>(args.forward, shape, item, chunk);
    rows.grad_output = args.grad_output.const_data_ptr<T>() + offset;
    rows.output = args.grad_input.mutable_data_ptr<T>() + offset;
    rows.channels = tables.of(item);
    return rows;
  };
  const Tables<T, Real> before(args.forward, {});
  const auto add = ChunkGradientSums<T, Real>::best();
  for_chunks(shape, [&](int64_t item, int64_t chunk, int64_t pixel) { add(rows_of(before, item, chunk, pixel)); });
  const GroupGradients<T, Real> groups{.totals = args.totals.const_data_ptr<Real>(),
                                       .weight = args.forward.weight.const_data_ptr<T>(),
                                       .rstd = args.forward.rstd.const_data_ptr<Real>(),
                                       .group_means = args.group_means.mutable_data_ptr<Real>(),
                                       .grad_shift = args.grad_shift.mutable_data_ptr<Real>(),
                                       .pixels = shape.pixels,
                                       .width = shape.width,
                                       .groups = shape.groups};
  for (int64_t item = 0; item < shape.items; ++item) {
    add_chunks<Real>(args, shape, item);
    for (int64_t group = 0; group < shape.groups; ++group) groups.write(item, group);
  }
  const Tables<T, Real> tables(args.forward, args.group_means);
  const auto write = WriteChunkGradient<T, Real>::best();
  for_chunks(shape, [&](int64_t item, int64_t chunk, int64_t pixel) { write(rows_of(tables, item, chunk, pixel)); });
}

}  // namespace

void group_norm_cpu(const GroupNormArgs& args) {
  for_float_type(args.input.scalar_type(),
                 [&](auto element, auto real) { forward<decltype(element), decltype(real)>(args); });
}

void group_norm_backward_cpu(const GroupNormGradArgs& args) {
  for_float_type(args.forward.input.scalar_type(),
                 [&](auto element, auto real) { backward<decltype(element), decltype(real)>(args); });
}

}  // namespace prefusion::kernels::detail

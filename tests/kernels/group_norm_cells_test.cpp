#include "kernels/group_norm/group_norm_cells.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/group_norm_cases.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::near;

// What the lanes of a block or warp hold, added up: in which tree makes no difference to which numbers are added.
template <typename Real, typename Lane>
Real total(int lanes, const Lane& lane_sum) {
  Real sum = 0;
  for (int lane = 0; lane < lanes; ++lane) sum += lane_sum(lane);
  return sum;
}

// The GPU's kernels, thread after thread: output and the gradients of input, shift, weight and bias.
template <int kSize, typename T, typename Real>
std::vector<at::Tensor> run_kernels(const GroupNormInputs& inputs, const GroupNormOptions& options) {
  const auto rows_of = [](const at::Tensor& picture) {
    return picture.permute({0, 2, 3, 1}).flatten(1, 2).contiguous();
  };
  const auto acc = at::dtype(c10::CppTypeToScalarType<Real>::value);
  const auto scratch = [&](at::IntArrayRef shape) { return at::full(shape, NAN, acc); };
  const at::Tensor rows = rows_of(inputs.input), grads = rows_of(inputs.grad_output);
  const int64_t items = rows.size(0), pixels = rows.size(1), width = rows.size(2), groups = options.num_groups;
  const int64_t chunks = (pixels + detail::kGroupNormChunk - 1) / detail::kGroupNormChunk;
  const at::Tensor output = at::full_like(rows, NAN), grad_input = at::full_like(rows, NAN);
  const at::Tensor mean = scratch({items, groups}), rstd = scratch({items, groups});
  const at::Tensor partial = scratch({items, chunks, 3, width}), totals = scratch({items, 3, width});
  const at::Tensor group_means = scratch({items, 2, groups}), grad_shift = scratch({items, width});
  GroupNormCells<kSize, T, Real> cells{.input = rows.const_data_ptr<T>(),
                                       .shift = inputs.shift.const_data_ptr<T>(),
                                       .weight = inputs.weight.const_data_ptr<T>(),
                                       .bias = inputs.bias.const_data_ptr<T>(),
                                       .grad_output = grads.const_data_ptr<T>(),
                                       .output = output.mutable_data_ptr<T>(),
                                       .mean = mean.const_data_ptr<Real>(),
                                       .rstd = rstd.const_data_ptr<Real>(),
                                       .group_means = group_means.const_data_ptr<Real>(),
                                       .partial = partial.mutable_data_ptr<Real>(),
                                       .pixels = pixels,
                                       .width = width,
                                       .groups = groups,
                                       .shift_stride = inputs.shift.stride(0),
                                       .chunk_pixels = detail::kGroupNormChunk,
                                       .chunks = chunks,
                                       .with_silu = options.with_silu};
  const auto for_cells = [&](const auto& step) {
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        for (int64_t column = 0; column < width; column += kSize) step(item, chunk, column);
      }
    }
  };
  for_cells([&](auto... place) { cells.measure(place...); });
  const GroupMoments<Real> moments{.partial = cells.partial,
                                   .mean = mean.mutable_data_ptr<Real>(),
                                   .rstd = rstd.mutable_data_ptr<Real>(),
                                   .pixels = pixels,
                                   .width = width,
                                   .groups = groups,
                                   .chunk_pixels = cells.chunk_pixels,
                                   .chunks = chunks,
                                   .eps = static_cast<Real>(options.eps)};
  constexpr int kLanes = 256;
  for (int64_t index = 0; index < items * groups; ++index) {
    const int64_t item = index / groups, group = index % groups;
    const Real group_mean =
        moments.mean_of(total<Real>(kLanes, [&](int lane) { return moments.sum(item, group, lane, kLanes); }));
    moments.mean[index] = group_mean;
    moments.rstd[index] = moments.rstd_of(
        total<Real>(kLanes, [&](int lane) { return moments.sum_of_squares(item, group, lane, kLanes, group_mean); }));
  }
  for_cells([&](auto... place) { cells.write(place...); });

  cells.output = grad_input.mutable_data_ptr<T>();
  partial.fill_(NAN);
  for_cells([&](auto... place) { cells.add_gradients(place...); });
  const GroupNormTotals<Real> sums{cells.partial, totals.mutable_data_ptr<Real>(), width, chunks};
  for (int64_t index = 0; index < items * 3 * width; ++index) {
    sums.totals[index] =
        total<Real>(32, [&](int lane) { return sums.sum(index / (3 * width), index % (3 * width), lane, 32); });
  }
  const GroupGradients<T, Real> gradients{.totals = sums.totals,
                                          .weight = cells.weight,
                                          .rstd = cells.rstd,
                                          .group_means = group_means.mutable_data_ptr<Real>(),
                                          .grad_shift = grad_shift.mutable_data_ptr<Real>(),
                                          .pixels = pixels,
                                          .width = width,
                                          .groups = groups};
  for (int64_t index = 0; index < items * groups; ++index) gradients.write(index / groups, index % groups);
  for_cells([&](auto... place) { cells.write_gradient(place...); });
  const auto picture = [&](const at::Tensor& result) {
    return result.unflatten(1, inputs.input.sizes().slice(2)).permute({0, 3, 1, 2});
  };
  return {picture(output), picture(grad_input), grad_shift, totals.select(1, 1).sum(0), totals.select(1, 0).sum(0)};
}

template <int kSize, typename T, typename Real>
void expect_kernels_agree(const GroupNormCase& c, const GroupNormInputs& exact_inputs, double tolerance) {
  const GroupNormInputs inputs = exact_inputs.to(at::dtype(c10::CppTypeToScalarType<T>::value));
  for (const bool with_silu : {false, true}) {
    const GroupNormOptions options{.num_groups = c.groups, .eps = 1e-4, .with_silu = with_silu};
    const auto expected = differentiate(ours, inputs.to(at::kDouble), options);
    const auto found = run_kernels<kSize, T, Real>(inputs, options);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(near(found[i], expected[i], tolerance))
          << c.batch << " x " << c.channels << " x " << c.height << " x " << c.width << " in " << c.groups
          << ", packets of " << kSize << ", silu " << with_silu << ", result " << i;
    }
  }
}

TEST(GroupNormCells, CoverEveryElementOnce) {
  at::manual_seed(8);
  for (const GroupNormCase& c : {GroupNormCase{1, 6, 1, 5, 3},
                                 {2, 7, 3, 11, 1},
                                 {1, 40, 4, 8, 4},
                                 {2, 40, 5, 13, 8},
                                 {3, 24, 1, 1, 2},
                                 {1, 16, 30, 33, 2}}) {
    const GroupNormInputs inputs = random_inputs(c);
    expect_kernels_agree<1, float, float>(c, inputs, 1e-5);
    expect_kernels_agree<1, double, double>(c, inputs, 1e-12);
    if (c.channels % 8 != 0) continue;
    expect_kernels_agree<kPacketSize<float>, float, float>(c, inputs, 1e-5);
    expect_kernels_agree<kPacketSize<at::BFloat16>, at::BFloat16, float>(c, inputs, 2e-2);
    expect_kernels_agree<kPacketSize<at::Half>, at::Half, float>(c, inputs, 3e-3);
    expect_kernels_agree<kPacketSize<double>, double, double>(c, inputs, 1e-12);
  }
}

}  // namespace
}  // namespace prefusion::kernels

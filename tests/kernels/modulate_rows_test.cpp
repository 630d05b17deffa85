#include "kernels/layer_norm_modulate/modulate_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kernels/layer_norm_modulate/layer_norm_modulate.h"
#include "tests/kernels/modulate_cases.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::near;

// The GPU's sum over a warp: partners add each other's numbers, at half the distance each time.
template <typename Real>
Real warp_total(std::vector<Real> values) {
  for (int distance = kModulateLanes / 2; distance > 0; distance /= 2) {
    const std::vector<Real> before = values;
    for (int lane = 0; lane < kModulateLanes; ++lane) values[lane] += before[lane ^ distance];
  }
  for (const Real value : values) EXPECT_EQ(value, values[0]);
  return values[0];
}

// The GPU's kernels, step after step for the 32 lanes of each row, and column after column.
template <int kSize, typename T, typename Real>
std::vector<at::Tensor> run_kernels(const Inputs& inputs) {
  const at::Tensor output = at::full_like(inputs.input, NAN), grad_input = at::full_like(inputs.input, NAN);
  const auto acc = at::dtype(c10::CppTypeToScalarType<Real>::value);
  const int64_t items = inputs.input.size(0), per_item = inputs.input.size(1), width = inputs.input.size(2);
  const at::Tensor mean = at::full({items * per_item}, NAN, acc), rstd = at::full_like(mean, NAN);
  ModulateRows<kSize, T, Real> rows{.input = inputs.input.const_data_ptr<T>(),
                                    .scale = inputs.scale.const_data_ptr<T>(),
                                    .shift = inputs.shift.const_data_ptr<T>(),
                                    .grad_output = inputs.grad_output.const_data_ptr<T>(),
                                    .output = output.mutable_data_ptr<T>(),
                                    .mean = mean.mutable_data_ptr<Real>(),
                                    .rstd = rstd.mutable_data_ptr<Real>(),
                                    .rows = items * per_item,
                                    .rows_per_item = per_item,
                                    .width = width,
                                    .scale_stride = inputs.scale.stride(0),
                                    .shift_stride = inputs.shift.stride(0),
                                    .eps = static_cast<Real>(kEps)};
  std::vector<Real> first(kModulateLanes), second(kModulateLanes);
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int lane = 0; lane < kModulateLanes; ++lane) first[lane] = rows.sum(row, lane);
    const Real row_mean = rows.mean_of(warp_total(first));
    for (int lane = 0; lane < kModulateLanes; ++lane) first[lane] = rows.sum_of_squares(row, lane, row_mean);
    const Real row_rstd = rows.rstd_of(warp_total(first));
    for (int lane = 0; lane < kModulateLanes; ++lane) rows.write(row, lane, row_mean, row_rstd);
  }
  rows.output = grad_input.mutable_data_ptr<T>();
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int lane = 0; lane < kModulateLanes; ++lane) {
      const RowSums<Real> sums = rows.gradient_sums(row, lane);
      first[lane] = sums.grads;
      second[lane] = sums.products;
    }
    const RowSums<Real> total{warp_total(first), warp_total(second)};
    for (int lane = 0; lane < kModulateLanes; ++lane) rows.write_gradient(row, lane, total);
  }
  const int64_t chunks = (per_item + detail::kModulateChunk - 1) / detail::kModulateChunk;
  const at::Tensor partial = at::full({items, chunks, 2, width}, NAN, acc);
  const at::Tensor grad_scale = at::full({items, width}, NAN, acc), grad_shift = at::full_like(grad_scale, NAN);
  const ModulateColumns<T, Real> columns{.input = rows.input,
                                         .grad_output = rows.grad_output,
                                         .mean = rows.mean,
                                         .rstd = rows.rstd,
                                         .partial = partial.mutable_data_ptr<Real>(),
                                         .grad_scale = grad_scale.mutable_data_ptr<Real>(),
                                         .grad_shift = grad_shift.mutable_data_ptr<Real>(),
                                         .rows_per_item = per_item,
                                         .width = width,
                                         .chunk_rows = detail::kModulateChunk,
                                         .chunks = chunks};
  for (int64_t column = 0; column < width; ++column) {
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) columns.add_chunk(item, chunk, column);
      columns.add_chunks_of(item, column);
    }
  }
  return {output, grad_input, grad_scale, grad_shift};
}

template <int kSize, typename T, typename Real>
void expect_kernels_agree(const Inputs& exact_inputs) {
  const at::ScalarType dtype = c10::CppTypeToScalarType<T>::value;
  const Inputs inputs = exact_inputs.to(at::dtype(dtype));
  const auto expected = differentiate(composed, inputs.to(at::kDouble));
  const auto found = run_kernels<kSize, T, Real>(inputs);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(near(found[i], expected[i], 4 * rounding(dtype)))
        << shape_text(inputs.input.sizes()) << ", result " << i;
  }
}

TEST(ModulateRowsTest, CoverEveryElementOnce) {
  at::manual_seed(6);
  for (const auto& [batch, rows] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {2, 64}, {1, 65}, {3, 129}}) {
    for (const int64_t width : {5, 7, 32, 72, 256, 264, 520}) {
      const Inputs inputs = random_inputs(batch, rows, width);
      expect_kernels_agree<1, float, float>(inputs);
      if (width % 8 != 0) continue;
      expect_kernels_agree<kPacketSize<float>, float, float>(inputs);
      expect_kernels_agree<kPacketSize<at::BFloat16>, at::BFloat16, float>(inputs);
      expect_kernels_agree<kPacketSize<at::Half>, at::Half, float>(inputs);
      expect_kernels_agree<kPacketSize<double>, double, double>(inputs);
    }
  }
}

}  // namespace
}  // namespace prefusion::kernels

#include "kernels/linear_rows/linear_rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/core/expect_error.h"

namespace prefusion::kernels {
namespace {

using tests::error_message;

struct Case {
  int64_t rows, inputs, outputs;
};

// Rows and outputs around the sizes of tiles and panels, inputs around vectors and the cut of long rows.
const std::vector<Case> kCases = {{1, 1, 1},   {1, 16, 4},   {5, 17, 3},     {6, 31, 5},    {7, 64, 9},
                                  {13, 3, 70}, {11, 100, 1}, {23, 1024, 66}, {8, 1025, 65}, {19, 2500, 131}};

TEST(LinearRows, IsTheProductInFp64) {
  for (const Case& c : kCases) {
    at::manual_seed(c.rows + c.inputs);
    const at::Tensor input = at::randn({c.rows, c.inputs}), weight = at::randn({c.outputs, c.inputs});
    const at::Tensor bias = at::randn({c.outputs});
    for (const at::Tensor& added : {bias, at::Tensor()}) {
      at::Tensor expected = at::mm(input.to(at::kDouble), weight.t().to(at::kDouble));
      if (added.defined()) expected = expected + added.to(at::kDouble);
      const at::Tensor found = linear_rows(input, weight, added);
      ASSERT_EQ(found.sizes(), expected.sizes());
      const double error = (found - expected).abs().max().item<double>();
      EXPECT_LT(error, 4e-7 * static_cast<double>(c.inputs) + 1e-6) << c.rows << ' ' << c.inputs << ' ' << c.outputs;
    }
  }
}

TEST(LinearRows, RowsDoNotDependOnTheirCompanyOrOnThreads) {
  const int num_threads = at::get_num_threads();
  for (const Case& c : kCases) {
    at::manual_seed(c.rows);
    const at::Tensor input = at::randn({c.rows, c.inputs}), weight = at::randn({c.outputs, c.inputs});
    const at::Tensor bias = at::randn({c.outputs});
    const at::Tensor together = linear_rows(input, weight, bias);
    for (int64_t row = 0; row < c.rows; ++row) {
      const at::Tensor alone = linear_rows(input.slice(0, row, row + 1), weight, bias);
      EXPECT_TRUE(at::equal(alone, together.slice(0, row, row + 1))) << row;
    }
    const at::Tensor large = at::cat({at::randn({211, c.inputs}), input, input.flip(0)});
    for (const int threads : {1, 3}) {
      at::set_num_threads(threads);
      EXPECT_TRUE(at::equal(linear_rows(large, weight, bias).slice(0, 211, 211 + c.rows), together));
    }
    at::set_num_threads(num_threads);
  }
}

TEST(LinearRows, TakesLeadingDimensionsViewsAndNoRows) {
  const at::Tensor weight = at::randn({8, 12}).slice(0, 0, 6), input = at::randn({2, 3, 24}).slice(2, 0, 24, 2);
  const at::Tensor found = linear_rows(input, weight, {});
  EXPECT_TRUE(at::allclose(found, at::linear(input, weight), 1e-5, 1e-5));
  EXPECT_EQ(linear_rows(at::empty({0, 12}), weight, {}).sizes(), (std::vector<int64_t>{0, 6}));
}

TEST(LinearRows, RefusesWhatItCannotCompute) {
  const at::Tensor weight = at::randn({6, 12});
  error_message(ErrorClass::kUsage, [&] { linear_rows(at::randn({2, 11}), weight, {}); });
  error_message(ErrorClass::kUsage, [&] { linear_rows(at::randn({2, 12}), weight, at::randn({5})); });
  error_message(ErrorClass::kUsage, [&] { linear_rows(at::randn({2, 12}, at::kDouble), weight, {}); });
  error_message(ErrorClass::kUsage, [&] { linear_rows(at::randn({2, 12}).requires_grad_(), weight, {}); });
}

}  // namespace
}  // namespace prefusion::kernels

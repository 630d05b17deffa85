#include "kernels/layer_norm_modulate/layer_norm_modulate.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "tests/kernels/device_test.h"
#include "tests/kernels/modulate_cases.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::expect_equal;
using prefusion::tests::near;
using prefusion::tests::relative_error;

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble};

at::Tensor ours(const at::Tensor& input, const at::Tensor& scale, const at::Tensor& shift) {
  return layer_norm_modulate(input, scale, shift, kEps);
}

class LayerNormModulateTest : public DeviceTest {};

TEST_P(LayerNormModulateTest, IsAsExactAsAtenForEveryDtypeAndShape) {
  at::manual_seed(1);
  const int64_t shapes[][3] = {{1, 1, 3},   {2, 3, 5},    {3, 1, 31},   {2, 63, 32},  {2, 64, 33}, {1, 65, 64},
                               {2, 7, 100}, {2, 130, 96}, {1, 77, 257}, {1, 3, 3072}, {2, 300, 40}};
  for (const auto& [batch, rows, width] : shapes) {
    const Inputs exact_inputs = random_inputs(batch, rows, width);
    for (const at::ScalarType dtype : kDtypes) {
      const Inputs inputs = exact_inputs.to(at::device(device()).dtype(dtype));
      const auto exact = differentiate(composed, inputs.to(at::device(device()).dtype(at::kDouble)));
      const auto theirs = differentiate(composed, inputs), found = differentiate(ours, inputs);
      for (size_t i = 0; i < exact.size(); ++i) {
        EXPECT_EQ(found[i].scalar_type(), dtype);
        EXPECT_LE(relative_error(found[i], exact[i]),
                  std::max(rounding(dtype), 2 * relative_error(theirs[i], exact[i])))
            << batch << " x " << rows << " x " << width << " " << c10::toString(dtype) << ", result " << i;
      }
    }
  }
}

// A row of one element has no deviation: its norm is zero.
TEST_P(LayerNormModulateTest, GivesTheShiftForRowsOfOneElement) {
  at::manual_seed(8);
  const Inputs inputs = random_inputs(2, 3, 1).to(at::device(device()).dtype(at::kFloat));
  const auto results = differentiate(ours, inputs);
  EXPECT_TRUE(at::equal(results[0], inputs.shift.unsqueeze(1).expand({2, 3, 1})));
  EXPECT_TRUE(at::equal(results[1], at::zeros_like(inputs.input)));
  EXPECT_TRUE(at::equal(results[2], at::zeros_like(inputs.scale)));
  EXPECT_TRUE(near(results[3], inputs.grad_output.sum(1), 1e-6));
}

// A large mean must not swallow the deviation, as the mean of the squares less the square of the mean would.
TEST_P(LayerNormModulateTest, KeepsTheDeviationOfALargeMean) {
  at::manual_seed(2);
  Inputs inputs = random_inputs(1, 4, 200);
  inputs.input += 1000;
  const auto like = at::device(device()).dtype(at::kFloat);
  const Inputs rounded = inputs.to(like);
  const auto exact = differentiate(composed, rounded.to(at::device(device()).dtype(at::kDouble)));
  EXPECT_TRUE(near(differentiate(ours, rounded)[0], exact[0], 1e-4));
}

TEST_P(LayerNormModulateTest, GradientsEqualFiniteDifferences) {
  at::manual_seed(3);
  const Inputs inputs = random_inputs(2, 3, 6).to(at::device(device()));
  const auto results = differentiate(ours, inputs);
  const std::vector<at::Tensor> leaves = {inputs.input, inputs.scale, inputs.shift};
  constexpr double kStep = 1e-5;
  for (size_t which = 0; which < leaves.size(); ++which) {
    const at::Tensor gradient = results[which + 1].flatten().cpu();
    for (int64_t i = 0; i < gradient.numel(); ++i) {
      const auto value = [&](double step) {
        std::vector<at::Tensor> moved = {leaves[0].clone(), leaves[1].clone(), leaves[2].clone()};
        moved[which].view({-1})[i] += step;
        return (ours(moved[0], moved[1], moved[2]) * inputs.grad_output).sum().item<double>();
      };
      EXPECT_NEAR(gradient[i].item<double>(), (value(kStep) - value(-kStep)) / (2 * kStep), 1e-8) << which << ", " << i;
    }
  }
}

TEST_P(LayerNormModulateTest, ReadsViewsOfOneProjection) {
  at::manual_seed(4);
  for (const int64_t width : {12, 7, 64}) {
    Inputs inputs = random_inputs(3, 5, width).to(at::device(device()).dtype(at::kFloat));
    const auto expected = differentiate(ours, inputs);
    const at::Tensor projected = at::randn({3, 6 * width}).to(device());
    const auto parts = projected.chunk(6, 1);
    parts[3].copy_(inputs.scale);
    parts[1].copy_(inputs.shift);
    Inputs views{inputs.input.transpose(0, 1).contiguous().transpose(0, 1), parts[3], parts[1],
                 inputs.grad_output.transpose(1, 2).contiguous().transpose(1, 2)};
    expect_equal(differentiate(ours, views), expected);
    // Elements of a row apart.
    views.scale = inputs.scale.t().contiguous().t();
    views.shift = inputs.shift.t().contiguous().t();
    expect_equal(differentiate(ours, views), expected);
    // One row for all items, and a gradient that is one number.
    views.scale = inputs.scale.narrow(0, 0, 1).expand({3, width});
    views.grad_output = at::ones({1, 1, 1}, inputs.input.options()).expand(inputs.input.sizes());
    EXPECT_TRUE(near(differentiate(ours, views)[1], differentiate(composed, views)[1], 1e-5));
  }
}

TEST_P(LayerNormModulateTest, LeavesOutGradientsThatAreNotWanted) {
  const Inputs inputs = random_inputs(2, 70, 9).to(at::device(device()));
  const auto expected = differentiate(ours, inputs);
  const at::Tensor leaf = inputs.input.detach().requires_grad_();
  ours(leaf, inputs.scale, inputs.shift).backward(inputs.grad_output);
  EXPECT_TRUE(at::equal(leaf.grad(), expected[1]));
  const at::Tensor scale = inputs.scale.detach().requires_grad_();
  ours(inputs.input, scale, inputs.shift).backward(inputs.grad_output);
  EXPECT_TRUE(at::equal(scale.grad(), expected[2]));
}

TEST_P(LayerNormModulateTest, RepeatsToTheBit) {
  at::manual_seed(5);
  const Inputs inputs = random_inputs(2, 257, 130).to(at::device(device()).dtype(at::kFloat));
  expect_equal(differentiate(ours, inputs), differentiate(ours, inputs));
}

TEST_P(LayerNormModulateTest, TakesAnEmptyBatch) {
  for (const auto& [batch, rows] : {std::pair<int64_t, int64_t>{0, 4}, {3, 0}}) {
    const Inputs inputs = random_inputs(batch, rows, 8).to(at::device(device()));
    const auto results = differentiate(ours, inputs);
    EXPECT_EQ(results[0].sizes(), inputs.input.sizes());
    EXPECT_TRUE(at::equal(results[2], at::zeros_like(inputs.scale)));
    EXPECT_TRUE(at::equal(results[3], at::zeros_like(inputs.shift)));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LayerNormModulateTest, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(LayerNormModulateCpu, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(7);
  const Inputs inputs = random_inputs(2, 200, 258).to(at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = differentiate(ours, inputs);
  at::set_num_threads(2);
  const auto two = differentiate(ours, inputs);
  at::set_num_threads(threads);
  expect_equal(two, one);
}

TEST(LayerNormModulateCpu, RefusesWhatItCannotDo) {
  const at::Tensor input = at::randn({2, 3, 4}), rows = at::randn({2, 4});
  EXPECT_THROW(layer_norm_modulate(input[0], rows, rows), Error);
  EXPECT_THROW(layer_norm_modulate(input, rows.unsqueeze(1), rows), Error);
  EXPECT_THROW(layer_norm_modulate(input, rows, at::randn({1, 4})), Error);
  EXPECT_THROW(layer_norm_modulate(input, rows.to(at::kBFloat16), rows), Error);
  EXPECT_THROW(layer_norm_modulate(input.to(at::kLong), rows.to(at::kLong), rows.to(at::kLong)), Error);
  EXPECT_THROW(layer_norm_modulate(at::randn({2, 3, 0}), at::randn({2, 0}), at::randn({2, 0})), Error);
  EXPECT_THROW(layer_norm_modulate(input, at::Tensor(), rows), Error);
  const at::Tensor leaf = input.clone().requires_grad_();
  const at::Tensor sum = layer_norm_modulate(leaf, rows, rows).sum();
  EXPECT_THROW(sum.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::exception);
}

}  // namespace
}  // namespace prefusion::kernels

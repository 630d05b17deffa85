#include "kernels/item_error/item_error.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "core/error.h"
#include "tests/kernels/device_test.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::near;

at::Tensor plain_error(const at::Tensor& prediction, const at::Tensor& target) {
  return (prediction.to(at::kDouble) - target.to(at::kDouble)).square().flatten(1).mean(1);
}

// Gradient of sum(weights * item_error) with respect to the prediction.
at::Tensor gradient(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& weights) {
  const at::Tensor leaf = prediction.detach().requires_grad_();
  (item_error(leaf, target) * weights).sum().backward();
  return leaf.grad();
}

class ItemError : public DeviceTest {};

TEST_P(ItemError, EqualsPlainAtenForEveryDtypeAndOddSize) {
  const std::vector<std::vector<int64_t>> shapes = {{1, 1, 1, 1},    {2, 4, 8, 8},   {3, 3, 5, 7},
                                                    {1, 16, 33, 31}, {5, 1, 64, 65}, {2, 4, 64, 64}};
  for (const auto& shape : shapes) {
    const at::Tensor target = at::randn(shape);
    const at::Tensor weights = at::linspace(0.5, 2.0, shape[0]);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      const at::Tensor prediction = at::randn(shape).to(dtype);
      const at::Tensor found = item_error(prediction.to(device()), target.to(device()));
      EXPECT_EQ(found.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
      EXPECT_TRUE(near(found, plain_error(prediction, target), 1e-6)) << shape_text(shape) << c10::toString(dtype);

      const at::Tensor grad = gradient(prediction.to(device()), target.to(device()), weights.to(device()));
      const double d = static_cast<double>(prediction.numel() / shape[0]);
      const at::Tensor expected =
          weights.view({-1, 1, 1, 1}) * (2.0 / d) * (prediction.to(at::kDouble) - target.to(at::kDouble));
      EXPECT_EQ(grad.scalar_type(), dtype);
      const double rounding = dtype == at::kBFloat16 ? 8e-3 : dtype == at::kHalf ? 1e-3 : 1e-6;
      EXPECT_TRUE(near(grad, expected, rounding)) << shape_text(shape) << c10::toString(dtype);
    }
  }
}

TEST_P(ItemError, GradientEqualsFiniteDifferences) {
  const at::Tensor prediction = at::randn({2, 2, 3, 3}, at::kDouble);
  const at::Tensor target = at::randn({2, 2, 3, 3}, at::kDouble).to(device());
  const at::Tensor weights = at::tensor({0.7, -1.3}, at::kDouble).to(device());
  const at::Tensor grad = gradient(prediction.to(device()), target, weights).cpu().flatten();
  constexpr double kStep = 1e-4;
  for (int64_t j = 0; j < prediction.numel(); ++j) {
    const auto value = [&](double step) {
      at::Tensor moved = prediction.clone();
      moved.view({-1})[j] += step;
      return (item_error(moved.to(device()), target) * weights).sum().item<double>();
    };
    EXPECT_NEAR(grad[j].item<double>(), (value(kStep) - value(-kStep)) / (2 * kStep), 1e-9);
  }
}

TEST_P(ItemError, ReadsNonContiguousAndChannelsLastInputs) {
  const at::Tensor target = at::randn({2, 4, 6, 5}).to(device());
  const at::Tensor strided = at::randn({5, 6, 4, 2}).to(device()).permute({3, 2, 1, 0});
  const at::Tensor channels_last = strided.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor weights = at::ones({2}, at::device(device()));
  for (const at::Tensor& prediction : {strided, channels_last}) {
    EXPECT_TRUE(near(item_error(prediction, target), plain_error(prediction, target), 1e-6));
    EXPECT_TRUE(near(gradient(prediction, target, weights), gradient(prediction.contiguous(), target, weights), 1e-6));
  }
}

TEST_P(ItemError, TakesAnEmptyBatch) {
  const at::Tensor prediction = at::empty({0, 4, 8, 8}, at::device(device())).requires_grad_();
  const at::Tensor error = item_error(prediction, at::empty({0, 4, 8, 8}, at::device(device())));
  EXPECT_EQ(error.sizes(), at::IntArrayRef({0}));
  error.sum().backward();
  EXPECT_EQ(prediction.grad().sizes(), prediction.sizes());
}

INSTANTIATE_TEST_SUITE_P(Devices, ItemError, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(ItemErrorCpu, DoesNotDependOnTheNumberOfThreadsOrTheBatch) {
  const at::Tensor prediction = at::randn({3, 4, 96, 95});
  const at::Tensor target = at::randn({3, 4, 96, 95});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = item_error(prediction, target);
  at::set_num_threads(2);
  const at::Tensor two = item_error(prediction, target);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, two));
  EXPECT_TRUE(at::equal(item_error(prediction[1].unsqueeze(0), target[1].unsqueeze(0))[0], one[1]));
}

TEST(ItemErrorCpu, SumsManyElementsWithoutLosingThem) {
  // One large residual must not swallow the small ones, as a single fp32 accumulator would.
  at::Tensor prediction = at::full({1, 16, 128, 128}, 1e-2);
  prediction[0][0][0][0] = 3000.0;
  const at::Tensor target = at::zeros({1, 16, 128, 128});
  EXPECT_NEAR(item_error(prediction, target).item<double>() / plain_error(prediction, target).item<double>(), 1, 2e-7);
}

TEST(ItemErrorCpu, PassesNonFiniteValuesOn) {
  const at::Tensor target = at::zeros({2, 1, 2, 2});
  at::Tensor prediction = at::ones({2, 1, 2, 2});
  prediction[0][0][0][0] = NAN;
  const at::Tensor error = item_error(prediction, target);
  EXPECT_TRUE(std::isnan(error[0].item<float>()));
  EXPECT_EQ(error[1].item<float>(), 1.0f);
}

TEST(ItemErrorCpu, RefusesWhatItCannotDo) {
  const at::Tensor prediction = at::randn({2, 4, 3, 3});
  const at::Tensor target = at::randn({2, 4, 3, 3});
  EXPECT_THROW(item_error(prediction, target[0]), Error);
  EXPECT_THROW(item_error(prediction.to(at::kLong), target), Error);
  EXPECT_THROW(item_error(at::empty({2, 0, 3, 3}), at::empty({2, 0, 3, 3})), Error);
  EXPECT_THROW(item_error(prediction, target.clone().requires_grad_()), Error);
  const at::Tensor leaf = prediction.clone().requires_grad_();
  const at::Tensor error = item_error(leaf, target).sum();
  EXPECT_THROW(error.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::exception);
}

}  // namespace
}  // namespace prefusion::kernels

#include "kernels/adamw/adamw.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "core/error.h"
#include "tests/kernels/device_test.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;

struct State {
  at::Tensor parameter, master, exp_avg, exp_avg_sq;
};

// What a run has after some steps.
State make_state(at::IntArrayRef shape, at::ScalarType dtype, at::Device device) {
  const at::Tensor master = at::randn(shape).to(device);
  return {master.to(dtype), master, (at::randn(shape) * 0.1).to(device), (at::rand(shape) * 0.01).to(device)};
}

at::Tensor count_of(double count, at::Device device) {
  return at::full({}, count, at::TensorOptions().device(device).dtype(at::kFloat));
}

// The step as its papers write it, in fp64.
State plain_step(const State& state, const at::Tensor& gradient, double count, const AdamWSettings& s) {
  const at::Tensor g = gradient.to(at::kDouble), w = state.master.to(at::kDouble);
  const at::Tensor m = s.beta1 * state.exp_avg.to(at::kDouble) + (1 - s.beta1) * g;
  const at::Tensor v = s.beta2 * state.exp_avg_sq.to(at::kDouble) + (1 - s.beta2) * g * g;
  const at::Tensor direction =
      m / (1 - std::pow(s.beta1, count)) / ((v / (1 - std::pow(s.beta2, count))).sqrt() + s.eps);
  const at::Tensor moved = w * (1 - s.lr * s.weight_decay) - s.lr * direction;
  return {moved.to(state.parameter.scalar_type()), moved, m, v};
}

// Sums may cancel: what counts is the size of what is added.
bool close(const at::Tensor& found, const at::Tensor& expected, double magnitude) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>() < 3e-7 * magnitude;
}

class AdamWStep : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    at::manual_seed(3);
  }
};

TEST_P(AdamWStep, EqualsItsFormulaForEveryDtypeAndOddSize) {
  const AdamWSettings settings{.lr = 0.02, .beta1 = 0.85, .beta2 = 0.97, .eps = 1e-5, .weight_decay = 0.3};
  const std::vector<std::vector<int64_t>> shapes = {{1}, {7}, {255}, {256}, {257}, {33, 31}, {3, 5, 3, 3}, {70'001}};
  for (const auto& shape : shapes) {
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      for (const double count : {1.0, 40.0}) {
        const State state = make_state(shape, dtype, device());
        const at::Tensor gradient = at::randn(shape).to(dtype).to(device());
        const State expected = plain_step(state, gradient, count, settings);
        adamw_step(state.parameter, state.master, gradient, state.exp_avg, state.exp_avg_sq, count_of(count, device()),
                   settings);
        const double largest = gradient.abs().max().item<double>() + 0.1;
        EXPECT_TRUE(close(state.exp_avg, expected.exp_avg, largest)) << shape_text(shape);
        EXPECT_TRUE(close(state.exp_avg_sq, expected.exp_avg_sq, largest * largest)) << shape_text(shape);
        EXPECT_TRUE(close(state.master, expected.master, state.master.abs().max().item<double>() + 0.1))
            << shape_text(shape);
        EXPECT_TRUE(at::equal(state.parameter, state.master.to(dtype))) << shape_text(shape);
      }
    }
  }
}

TEST_P(AdamWStep, TakesGradientsInAnotherMemoryOrder) {
  const State state = make_state({4, 6, 3, 5}, at::kBFloat16, device());
  const State same = {state.parameter.clone(), state.master.clone(), state.exp_avg.clone(), state.exp_avg_sq.clone()};
  const at::Tensor gradient = at::randn({4, 6, 3, 5}).to(at::kBFloat16).to(device());
  adamw_step(state.parameter, state.master, gradient, state.exp_avg, state.exp_avg_sq, count_of(3, device()), {});
  adamw_step(same.parameter, same.master, gradient.contiguous(at::MemoryFormat::ChannelsLast), same.exp_avg,
             same.exp_avg_sq, count_of(3, device()), {});
  EXPECT_TRUE(at::equal(state.master, same.master));
}

TEST_P(AdamWStep, ZeroGradientsOfAFreshStateOnlyDecay) {
  const at::Tensor master = at::ones({5}).to(device()), zeros = at::zeros({5}).to(device());
  const at::Tensor parameter = master.to(at::kHalf);
  adamw_step(parameter, master, zeros.to(at::kHalf), zeros.clone(), zeros.clone(), count_of(1, device()),
             {.lr = 0.5, .weight_decay = 0.5});
  EXPECT_TRUE(at::equal(master.cpu(), at::full({5}, 0.75)));
}

// 1 - beta in fp32 would be off by 1.3e-5 at 0.999.
TEST_P(AdamWStep, FirstMomentsAreExactSharesOfTheGradient) {
  const at::Tensor master = at::ones({64}).to(device()), gradient = at::randn({64}).to(at::kBFloat16).to(device());
  const at::Tensor exp_avg = at::zeros({64}).to(device()), exp_avg_sq = at::zeros({64}).to(device());
  adamw_step(master.to(at::kBFloat16), master, gradient, exp_avg, exp_avg_sq, count_of(1, device()),
             {.beta1 = 0.9, .beta2 = 0.999});
  const at::Tensor g = gradient.to(at::kDouble);
  EXPECT_LT((exp_avg.to(at::kDouble) / (0.1 * g) - 1).abs().max().item<double>(), 4e-7);
  EXPECT_LT((exp_avg_sq.to(at::kDouble) / (0.001 * g * g) - 1).abs().max().item<double>(), 4e-7);
}

TEST_P(AdamWStep, IsTheSameForAnyNumberOfThreads) {
  const State state = make_state({100'003}, at::kBFloat16, device());
  const State same = {state.parameter.clone(), state.master.clone(), state.exp_avg.clone(), state.exp_avg_sq.clone()};
  const at::Tensor gradient = at::randn({100'003}).to(at::kBFloat16).to(device());
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  adamw_step(state.parameter, state.master, gradient, state.exp_avg, state.exp_avg_sq, count_of(2, device()), {});
  at::set_num_threads(3);
  adamw_step(same.parameter, same.master, gradient, same.exp_avg, same.exp_avg_sq, count_of(2, device()), {});
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(state.master, same.master) && at::equal(state.exp_avg_sq, same.exp_avg_sq));
}

TEST_P(AdamWStep, TakesNothing) {
  const State state = make_state({0, 3}, at::kHalf, device());
  adamw_step(state.parameter, state.master, state.parameter.clone(), state.exp_avg, state.exp_avg_sq,
             count_of(1, device()), {});
}

TEST_P(AdamWStep, RefusesWhatDoesNotFit) {
  const State state = make_state({4, 6}, at::kBFloat16, device());
  const at::Tensor gradient = at::randn({4, 6}).to(at::kBFloat16).to(device()), count = count_of(1, device());
  const auto step = [&](const at::Tensor& p, const at::Tensor& w, const at::Tensor& g, const at::Tensor& m,
                        const at::Tensor& c) { adamw_step(p, w, g, m, state.exp_avg_sq, c, {}); };
  EXPECT_THROW(step(state.master, state.master, gradient, state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient.to(at::kHalf), state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient.t(), state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.parameter, gradient, state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient, state.exp_avg.t().contiguous().t(), count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient, state.exp_avg, at::ones({1}).to(device())), Error);
  const at::Tensor sparse = state.parameter.expand({2, 4, 6});
  EXPECT_THROW(step(sparse, sparse.to(at::kFloat), sparse, sparse.to(at::kFloat), count), Error);
}

INSTANTIATE_TEST_SUITE_P(Devices, AdamWStep, testing::Values("cpu", "cuda"), tests::device_name);

}  // namespace
}  // namespace prefusion::kernels

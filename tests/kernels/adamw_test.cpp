#include "kernels/adamw/adamw.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "core/error.h"
#include "kernels/adamw/adamw_rows.h"
#include "tests/kernels/device_test.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;

struct State {
  at::Tensor parameter, master, exp_avg, exp_avg_sq;  // parameter undefined in fp32

  State clone() const {
    return {parameter.defined() ? parameter.clone() : parameter, master.clone(), exp_avg.clone(), exp_avg_sq.clone()};
  }
  AdamWTensors with(const at::Tensor& gradient, const at::Tensor& count) const {
    return {parameter, master, gradient, exp_avg, exp_avg_sq, count};
  }
};

// What a run has after some steps.
State make_state(at::IntArrayRef shape, at::ScalarType dtype, at::Device device) {
  const at::Tensor master = at::randn(shape).to(device);
  return {dtype == at::kFloat ? at::Tensor() : master.to(dtype), master, (at::randn(shape) * 0.1).to(device),
          (at::rand(shape) * 0.01).to(device)};
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
  return {{}, moved, m, v};
}

// Sums may cancel: what counts is the size of what is added.
bool close(const at::Tensor& found, const at::Tensor& expected, double magnitude) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>() < 3e-7 * magnitude;
}

void expect_close(const State& found, const State& expected, const at::Tensor& gradient) {
  const double largest = gradient.abs().max().item<double>() + 0.1;
  EXPECT_TRUE(close(found.exp_avg, expected.exp_avg, largest));
  EXPECT_TRUE(close(found.exp_avg_sq, expected.exp_avg_sq, largest * largest));
  EXPECT_TRUE(close(found.master, expected.master, found.master.abs().max().item<double>() + 0.1));
  if (found.parameter.defined()) {
    EXPECT_TRUE(at::equal(found.parameter, found.master.to(found.parameter.scalar_type())));
  }
}

bool equal(const State& a, const State& b) {
  return at::equal(a.master, b.master) && at::equal(a.exp_avg, b.exp_avg) && at::equal(a.exp_avg_sq, b.exp_avg_sq) &&
         (!a.parameter.defined() || at::equal(a.parameter, b.parameter));
}

constexpr AdamWSettings kSettings{.lr = 0.02, .beta1 = 0.85, .beta2 = 0.97, .eps = 1e-5, .weight_decay = 0.3};

class AdamWStep : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    at::manual_seed(3);
  }
};

TEST_P(AdamWStep, EqualsItsFormulaForEveryDtypeAndOddSize) {
  const std::vector<std::vector<int64_t>> shapes = {{1}, {7}, {255}, {256}, {257}, {33, 31}, {3, 5, 3, 3}, {70'001}};
  for (const auto& shape : shapes) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const double count : {1.0, 40.0}) {
        const State state = make_state(shape, dtype, device());
        const at::Tensor gradient = at::randn(shape).to(dtype).to(device());
        const State expected = plain_step(state, gradient, count, kSettings);
        adamw_step({state.with(gradient, count_of(count, device()))}, kSettings);
        SCOPED_TRACE(shape_text(shape));
        expect_close(state, expected, gradient);
      }
    }
  }
}

TEST_P(AdamWStep, TakesGradientsInAnotherMemoryOrder) {
  const State state = make_state({4, 6, 3, 5}, at::kBFloat16, device());
  const State same = state.clone();
  const at::Tensor gradient = at::randn({4, 6, 3, 5}).to(at::kBFloat16).to(device());
  adamw_step({state.with(gradient, count_of(3, device()))}, {});
  adamw_step({same.with(gradient.contiguous(at::MemoryFormat::ChannelsLast), count_of(3, device()))}, {});
  EXPECT_TRUE(at::equal(state.master, same.master));
}

TEST_P(AdamWStep, ZeroGradientsOfAFreshStateOnlyDecay) {
  const at::Tensor master = at::ones({5}).to(device()), zeros = at::zeros({5}).to(device());
  const at::Tensor parameter = master.to(at::kHalf);
  adamw_step({{parameter, master, zeros.to(at::kHalf), zeros.clone(), zeros.clone(), count_of(1, device())}},
             {.lr = 0.5, .weight_decay = 0.5});
  EXPECT_TRUE(at::equal(master.cpu(), at::full({5}, 0.75)));
}

// 1 - beta in fp32 would be off by 1.3e-5 at 0.999.
TEST_P(AdamWStep, FirstMomentsAreExactSharesOfTheGradient) {
  const at::Tensor master = at::ones({64}).to(device()), gradient = at::randn({64}).to(at::kBFloat16).to(device());
  const at::Tensor exp_avg = at::zeros({64}).to(device()), exp_avg_sq = at::zeros({64}).to(device());
  adamw_step({{master.to(at::kBFloat16), master, gradient, exp_avg, exp_avg_sq, count_of(1, device())}},
             {.beta1 = 0.9, .beta2 = 0.999});
  const at::Tensor g = gradient.to(at::kDouble);
  EXPECT_LT((exp_avg.to(at::kDouble) / (0.1 * g) - 1).abs().max().item<double>(), 4e-7);
  EXPECT_LT((exp_avg_sq.to(at::kDouble) / (0.001 * g * g) - 1).abs().max().item<double>(), 4e-7);
}

TEST_P(AdamWStep, IsTheSameForAnyNumberOfThreads) {
  const State state = make_state({100'003}, at::kBFloat16, device());
  const State same = state.clone();
  const at::Tensor gradient = at::randn({100'003}).to(at::kBFloat16).to(device());
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  adamw_step({state.with(gradient, count_of(2, device()))}, {});
  at::set_num_threads(3);
  adamw_step({same.with(gradient, count_of(2, device()))}, {});
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(state.master, same.master) && at::equal(state.exp_avg_sq, same.exp_avg_sq));
}

TEST_P(AdamWStep, TakesNothing) {
  const State state = make_state({0, 3}, at::kHalf, device());
  adamw_step({state.with(state.parameter.clone(), count_of(1, device()))}, {});
  adamw_step({}, {});
}

TEST_P(AdamWStep, TakesMoreParametersThanALaunchAndEachWithItsOwnCount) {
  std::vector<AdamWTensors> tensors;
  std::vector<State> states, expected;
  std::vector<at::Tensor> gradients;
  constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
  for (int64_t i = 0; i < 200; ++i) {
    const std::vector<int64_t> shape = {i % 50 == 9 ? 20'000 + i : 1 + i % 7, i % 11};
    const at::ScalarType dtype = kDtypes[i % 3];
    states.push_back(make_state(shape, dtype, device()));
    gradients.push_back(at::randn(shape).to(dtype).to(device()));
    const double count = 1.0 + static_cast<double>(i % 5);
    expected.push_back(plain_step(states.back(), gradients.back(), count, kSettings));
    tensors.push_back(states.back().with(gradients.back(), count_of(count, device())));
  }
  adamw_step(tensors, kSettings);
  for (size_t i = 0; i < states.size(); ++i) {
    SCOPED_TRACE(i);
    if (states[i].master.numel() > 0) expect_close(states[i], expected[i], gradients[i]);
  }
}

TEST_P(AdamWStep, AGateThatIsShutLeavesEverythingAndAnOpenOneChangesNothing) {
  const at::Tensor zero = count_of(0, device()), one = count_of(1, device());
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const State before = make_state({300}, dtype, device());
    const at::Tensor gradient = at::full({300}, NAN).to(dtype).to(device());
    const State shut = before.clone();
    adamw_step({shut.with(gradient, one)}, kSettings, {.takes = zero});
    EXPECT_TRUE(equal(shut, before));
    const at::Tensor finite = at::randn({300}).to(dtype).to(device());
    const State open = before.clone(), plain = before.clone();
    adamw_step({open.with(finite, one)}, kSettings, {.takes = one});
    adamw_step({plain.with(finite, one)}, kSettings);
    EXPECT_TRUE(equal(open, plain));
    EXPECT_FALSE(equal(open, before));
  }
}

TEST_P(AdamWStep, GradientsAreMultipliedByTheGatesFactor) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const State found = make_state({300}, dtype, device()), expected = found.clone();
    const at::Tensor gradient = at::randn({300}).to(dtype).to(device());
    // A power of two is exact in every dtype.
    adamw_step({found.with(gradient, count_of(2, device()))}, kSettings, {.gradient_factor = count_of(0.25, device())});
    adamw_step({expected.with(gradient * 0.25, count_of(2, device()))}, kSettings);
    EXPECT_TRUE(equal(found, expected));
  }
}

TEST_P(AdamWStep, RefusesWhatDoesNotFit) {
  const State state = make_state({4, 6}, at::kBFloat16, device());
  const at::Tensor gradient = at::randn({4, 6}).to(at::kBFloat16).to(device()), count = count_of(1, device());
  const auto step = [&](const at::Tensor& p, const at::Tensor& w, const at::Tensor& g, const at::Tensor& m,
                        const at::Tensor& c, const StepGate& gate = {}) {
    adamw_step({{p, w, g, m, state.exp_avg_sq, c}}, {}, gate);
  };
  EXPECT_THROW(step(state.parameter, state.master, gradient, state.exp_avg, count, {.takes = at::ones({1})}), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient, state.exp_avg, count,
                    {.gradient_factor = at::ones({}, at::kDouble).to(device())}),
               Error);
  EXPECT_THROW(step({}, state.master, gradient, state.exp_avg, count), Error);
  EXPECT_THROW(step(state.master, state.master, gradient, state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient.to(at::kHalf), state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient.t(), state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.parameter, gradient, state.exp_avg, count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient, state.exp_avg.t().contiguous().t(), count), Error);
  EXPECT_THROW(step(state.parameter, state.master, gradient, state.exp_avg, at::ones({1}).to(device())), Error);
  const at::Tensor sparse = state.parameter.expand({2, 4, 6});
  EXPECT_THROW(step(sparse, sparse.to(at::kFloat), sparse, sparse.to(at::kFloat), count), Error);
}

// The GPU's kernel, thread after thread, on what may be moved in packets and what may not.
TEST(AdamWTableTest, ThreadsCoverEveryElementOnce) {
  at::manual_seed(5);
  using Element = at::BFloat16;
  detail::AdamWTable<Element> table;
  std::vector<State> states, expected;
  std::vector<at::Tensor> gradients, counts;
  for (const int64_t length : {1, 4, 7, 4096, 4097, 9001, 5}) {
    for (const int64_t offset : {0, 1}) {
      const auto part = [&](const at::Tensor& whole) { return whole.slice(0, offset); };
      const State whole = make_state({length + offset}, at::kBFloat16, at::kCPU);
      states.push_back({part(whole.parameter), part(whole.master), part(whole.exp_avg), part(whole.exp_avg_sq)});
      gradients.push_back(at::randn({length}).to(at::kBFloat16));
      counts.push_back(count_of(static_cast<double>(1 + offset), at::kCPU));
      expected.push_back(plain_step(states.back(), gradients.back(), 1.0 + static_cast<double>(offset), kSettings));
      ASSERT_TRUE(table.add(detail::adamw_row<Element>(states.back().with(gradients.back(), counts.back()))));
    }
  }
  EXPECT_TRUE(table.rows[0].takes_packets);
  EXPECT_FALSE(table.rows[1].takes_packets);
  constexpr int kThreads = 96;
  for (int chunk = 0; chunk < table.num_chunks(); ++chunk) {
    for (int thread = 0; thread < kThreads; ++thread) {
      table.step(chunk, thread, kThreads, detail::adamw_constants(kSettings), /*gradient_factor=*/1.0F);
    }
  }
  for (size_t i = 0; i < states.size(); ++i) {
    SCOPED_TRACE(i);
    expect_close(states[i], expected[i], gradients[i]);
  }
}

TEST(AdamWTableTest, AFullTableTakesNoMore) {
  const State state = make_state({3}, at::kHalf, at::kCPU);
  const auto row = detail::adamw_row<at::Half>(state.with(state.parameter, count_of(1, at::kCPU)));
  detail::AdamWTable<at::Half> table;
  for (int i = 0; i < detail::AdamWTable<at::Half>::kMaxRows; ++i) EXPECT_TRUE(table.add(row));
  EXPECT_FALSE(table.add(row));
  EXPECT_EQ(table.num_chunks(), detail::AdamWTable<at::Half>::kMaxRows);
}

INSTANTIATE_TEST_SUITE_P(Devices, AdamWStep, testing::Values("cpu", "cuda"), tests::device_name);

}  // namespace
}  // namespace prefusion::kernels

#include "kernels/rms_norm_rotary/rms_norm_rotary.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "kernels/rms_norm_rotary/head_rows.h"
#include "tests/kernels/device_test.h"
#include "tests/kernels/exactness.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::expect_equal;
using prefusion::tests::near;
using prefusion::tests::relative_error;

constexpr double kEps = 1e-5;

struct HeadCase {
  int64_t batch, heads, tokens, width;
};

struct HeadInputs {
  at::Tensor states, weight, grad_output;
  RotaryAngles angles;

  HeadInputs to(const at::TensorOptions& options) const {
    const auto angle = [&](const at::Tensor& a) { return a.defined() ? a.to(options.device()) : a; };
    return {
        states.to(options), weight.to(options), grad_output.to(options), {angle(angles.cosines), angle(angles.sines)}};
  }
};

HeadInputs random_inputs(const HeadCase& c, bool is_turned) {
  const at::Tensor angles = at::rand({c.tokens, c.width / 2}) * 6.28;
  const auto states = [&] { return at::randn({c.batch, c.heads, c.tokens, c.width}, at::kDouble); };
  return {states() * 3, at::randn({c.width}, at::kDouble), states(),
          is_turned ? RotaryAngles{at::cos(angles), at::sin(angles)} : RotaryAngles{}};
}

// What ATen makes of it, in the steps of the models' public code.
at::Tensor composed(const HeadInputs& inputs) {
  const at::Tensor normed = at::rms_norm(inputs.states, {inputs.states.size(-1)}, inputs.weight, kEps);
  if (!inputs.angles.cosines.defined()) return normed;
  const at::ScalarType wide = normed.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor pairs = normed.to(wide).unflatten(-1, {-1, 2});
  const at::Tensor first = pairs.select(-1, 0), second = pairs.select(-1, 1);
  const at::Tensor cosines = inputs.angles.cosines.to(wide), sines = inputs.angles.sines.to(wide);
  return at::stack({first * cosines - second * sines, second * cosines + first * sines}, -1)
      .flatten(-2)
      .to(normed.scalar_type());
}

at::Tensor ours(const HeadInputs& inputs) {
  return rms_norm_rotary(inputs.states, inputs.weight, kEps, inputs.angles);
}

// Output, then the gradients of states and weight.
template <typename Operation>
std::vector<at::Tensor> differentiate(const Operation& operation, const HeadInputs& inputs) {
  HeadInputs leaves = inputs;
  leaves.states = inputs.states.detach().requires_grad_();
  leaves.weight = inputs.weight.detach().requires_grad_();
  const at::Tensor output = operation(leaves);
  auto results = torch::autograd::grad({output}, {leaves.states, leaves.weight}, {inputs.grad_output});
  results.insert(results.begin(), output.detach());
  return results;
}

constexpr HeadCase kCases[] = {{1, 1, 1, 2},    {2, 3, 5, 6},   {1, 2, 7, 64},  {2, 4, 33, 72},
                               {1, 24, 9, 128}, {2, 1, 11, 66}, {1, 5, 60, 34}, {2, 2, 140, 4}};

class RmsNormRotaryTest : public DeviceTest {};

TEST_P(RmsNormRotaryTest, IsAsExactAsAtenForEveryDtypeAndShape) {
  at::manual_seed(1);
  for (const HeadCase& c : kCases) {
    for (const bool is_turned : {false, true}) {
      const HeadInputs exact_inputs = random_inputs(c, is_turned);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
        const HeadInputs inputs = exact_inputs.to(at::device(device()).dtype(dtype));
        const auto exact = differentiate(composed, inputs.to(at::device(device()).dtype(at::kDouble)));
        const auto theirs = differentiate(composed, inputs), found = differentiate(ours, inputs);
        for (size_t i = 0; i < exact.size(); ++i) {
          EXPECT_EQ(found[i].scalar_type(), dtype);
          EXPECT_LE(relative_error(found[i], exact[i]),
                    std::max(tests::rounding(dtype, 6e-7, 1e-13), 2 * relative_error(theirs[i], exact[i])))
              << c.batch << " x " << c.heads << " x " << c.tokens << " x " << c.width << " " << c10::toString(dtype)
              << ", turned " << is_turned << ", result " << i;
        }
      }
    }
  }
}

TEST_P(RmsNormRotaryTest, GradientsEqualFiniteDifferences) {
  at::manual_seed(2);
  const HeadInputs inputs = random_inputs({2, 2, 3, 4}, true).to(at::device(device()).dtype(at::kDouble));
  const auto results = differentiate(ours, inputs);
  constexpr double kStep = 1e-5;
  for (size_t which = 0; which < 2; ++which) {
    const at::Tensor gradient = results[which + 1].contiguous().flatten().cpu();
    for (int64_t i = 0; i < gradient.numel(); ++i) {
      const auto value = [&](double step) {
        HeadInputs moved = inputs;
        moved.states = inputs.states.clone();
        moved.weight = inputs.weight.clone();
        (which == 0 ? moved.states : moved.weight).view({-1})[i] += step;
        return (ours(moved) * inputs.grad_output).sum().item<double>();
      };
      EXPECT_NEAR(gradient[i].item<double>(), (value(kStep) - value(-kStep)) / (2 * kStep), 1e-8) << which << ", " << i;
    }
  }
}

TEST_P(RmsNormRotaryTest, KeepsTheMemoryOrderOfAProjection) {
  at::manual_seed(3);
  const HeadInputs inputs = random_inputs({2, 3, 5, 8}, true).to(at::device(device()).dtype(at::kFloat));
  const auto expected = differentiate(ours, inputs);
  EXPECT_TRUE(expected[0].is_contiguous());
  HeadInputs views = inputs;
  views.states = inputs.states.transpose(1, 2).contiguous().transpose(1, 2);
  const auto found = differentiate(ours, views);
  expect_equal({found[0], found[1]}, {expected[0], expected[1]});
  EXPECT_TRUE(near(found[2], expected[2], 1e-6));  // its rows come in another order
  EXPECT_TRUE(found[0].transpose(1, 2).is_contiguous());
  EXPECT_TRUE(found[1].transpose(1, 2).is_contiguous());
  // Any other order, an offset that splits pairs, and a gradient of another order than the states.
  const at::Tensor padded = at::empty({2 * 3 * 5 * 8 + 1}, inputs.states.options());
  views.states = padded.slice(0, 1).view(inputs.states.sizes()).copy_(inputs.states);
  expect_equal(differentiate(ours, views), expected);
  views.states = inputs.states.transpose(2, 3).contiguous().transpose(2, 3);
  views.grad_output = inputs.grad_output.transpose(0, 3).contiguous().transpose(0, 3);
  expect_equal(differentiate(ours, views), expected);
}

TEST_P(RmsNormRotaryTest, WithoutAWeightHasOnesForIt) {
  HeadInputs inputs = random_inputs({1, 2, 3, 6}, true).to(at::device(device()).dtype(at::kFloat));
  inputs.weight.fill_(1);
  EXPECT_TRUE(at::equal(rms_norm_rotary(inputs.states, {}, kEps, inputs.angles), ours(inputs)));
}

TEST_P(RmsNormRotaryTest, LeavesOutGradientsThatAreNotWanted) {
  const HeadInputs inputs = random_inputs({1, 2, 3, 6}, true).to(at::device(device()).dtype(at::kFloat));
  const auto expected = differentiate(ours, inputs);
  HeadInputs some = inputs;
  some.states = inputs.states.detach().requires_grad_();
  ours(some).backward(inputs.grad_output);
  EXPECT_TRUE(at::equal(some.states.grad(), expected[1]));
  some = inputs;
  some.weight = inputs.weight.detach().requires_grad_();
  ours(some).backward(inputs.grad_output);
  EXPECT_TRUE(at::equal(some.weight.grad(), expected[2]));
}

TEST_P(RmsNormRotaryTest, TakesAnEmptyBatch) {
  const HeadInputs inputs = random_inputs({0, 2, 3, 4}, true).to(at::device(device()).dtype(at::kFloat));
  const auto results = differentiate(ours, inputs);
  EXPECT_EQ(results[0].sizes(), inputs.states.sizes());
  EXPECT_TRUE(at::equal(results[2], at::zeros_like(inputs.weight)));
}

INSTANTIATE_TEST_SUITE_P(Devices, RmsNormRotaryTest, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(RmsNormRotaryCpu, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(4);
  const HeadInputs inputs = random_inputs({2, 3, 300, 66}, true).to(at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = differentiate(ours, inputs);
  at::set_num_threads(2);
  const auto two = differentiate(ours, inputs);
  at::set_num_threads(threads);
  expect_equal(two, one);
}

TEST(RmsNormRotaryCpu, RefusesWhatItCannotDo) {
  const at::Tensor states = at::randn({1, 2, 3, 4}), weight = at::ones({4}), angles = at::ones({3, 2});
  EXPECT_THROW(rms_norm_rotary(states[0], weight, kEps, {}), Error);
  EXPECT_THROW(rms_norm_rotary(at::randn({1, 2, 3, 5}), {}, kEps, {}), Error);
  EXPECT_THROW(rms_norm_rotary(at::randn({1, 2, 3, 0}), {}, kEps, {}), Error);
  EXPECT_THROW(rms_norm_rotary(states, at::ones({3}), kEps, {}), Error);
  EXPECT_THROW(rms_norm_rotary(states, weight.to(at::kHalf), kEps, {}), Error);
  EXPECT_THROW(rms_norm_rotary(states.to(at::kLong), {}, kEps, {}), Error);
  EXPECT_THROW(rms_norm_rotary(states, weight, kEps, {angles, {}}), Error);
  EXPECT_THROW(rms_norm_rotary(states, weight, kEps, {angles, at::ones({2, 2})}), Error);
  EXPECT_THROW(rms_norm_rotary(states, weight, kEps, {angles.to(at::kDouble), angles}), Error);
  const at::Tensor leaf = states.clone().requires_grad_();
  const at::Tensor sum = rms_norm_rotary(leaf, weight, kEps, {}).sum();
  EXPECT_THROW(sum.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::exception);
}

// The GPU's kernels, lane after lane of every row and column after column, in fp64.
std::vector<at::Tensor> run_kernels(const HeadInputs& inputs, bool tokens_outside) {
  const auto in_order = [&](const at::Tensor& tensor) {
    return (tokens_outside ? tensor.transpose(1, 2) : tensor).contiguous();
  };
  const at::Tensor states = in_order(inputs.states), grads = in_order(inputs.grad_output);
  const int64_t width = states.size(3), rows = states.numel() / width;
  const int64_t chunks = (rows + detail::kHeadRowsChunk - 1) / detail::kHeadRowsChunk;
  const at::Tensor output = at::full_like(states, NAN), grad_states = at::full_like(states, NAN);
  const at::Tensor rstd = at::full({rows}, NAN, at::kDouble), partial = at::full({chunks, width}, NAN, at::kDouble);
  const at::Tensor grad_weight = at::full({width}, NAN, at::kDouble);
  const bool is_turned = inputs.angles.cosines.defined();
  HeadRows<double, double> heads{.states = states.const_data_ptr<double>(),
                                 .grad_output = grads.const_data_ptr<double>(),
                                 .output = output.mutable_data_ptr<double>(),
                                 .weight = inputs.weight.const_data_ptr<double>(),
                                 .cosines = is_turned ? inputs.angles.cosines.const_data_ptr<float>() : nullptr,
                                 .sines = is_turned ? inputs.angles.sines.const_data_ptr<float>() : nullptr,
                                 .rstd = rstd.mutable_data_ptr<double>(),
                                 .rows = rows,
                                 .width = width,
                                 .tokens = inputs.states.size(2),
                                 .rows_per_token = tokens_outside ? inputs.states.size(1) : 1,
                                 .eps = kEps};
  const auto total = [](const auto& lane_sum) {
    double sum = 0;
    for (int lane = 0; lane < kHeadLanes; ++lane) sum += lane_sum(lane);
    return sum;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const double row_rstd = heads.rstd_of(total([&](int lane) { return heads.sum_of_squares(row, lane); }));
    for (int lane = 0; lane < kHeadLanes; ++lane) heads.write(row, lane, row_rstd);
  }
  heads.output = grad_states.mutable_data_ptr<double>();
  for (int64_t row = 0; row < rows; ++row) {
    const double sum = total([&](int lane) { return heads.product_sum(row, lane); });
    for (int lane = 0; lane < kHeadLanes; ++lane) heads.write_gradient(row, lane, sum);
  }
  const HeadColumns<double, double> columns{.heads = heads,
                                            .partial = partial.mutable_data_ptr<double>(),
                                            .grad_weight = grad_weight.mutable_data_ptr<double>(),
                                            .chunk_rows = detail::kHeadRowsChunk,
                                            .chunks = chunks};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t j = 0; j < width; j += 2) columns.add_chunk(chunk, j);
  }
  for (int64_t j = 0; j < width; ++j) {
    columns.grad_weight[j] = total([&](int lane) { return columns.sum(j, lane); });
  }
  const auto back = [&](const at::Tensor& tensor) { return tokens_outside ? tensor.transpose(1, 2) : tensor; };
  return {back(output), back(grad_states), grad_weight};
}

TEST(HeadRowsTest, CoverEveryElementOnce) {
  at::manual_seed(5);
  for (const HeadCase& c : kCases) {
    for (const bool is_turned : {false, true}) {
      const HeadInputs inputs = random_inputs(c, is_turned);
      const auto expected = differentiate(composed, inputs);
      for (const bool tokens_outside : {false, true}) {
        const auto found = run_kernels(inputs, tokens_outside);
        for (size_t i = 0; i < expected.size(); ++i) {
          EXPECT_TRUE(near(found[i], expected[i], 1e-12))
              << c.batch << " x " << c.heads << " x " << c.tokens << " x " << c.width << ", turned " << is_turned
              << ", tokens outside " << tokens_outside << ", result " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace prefusion::kernels

#include "kernels/group_norm/group_norm.h"

#include <ATen/Parallel.h>

#include <vector>

#include "core/error.h"
#include "tests/kernels/device_test.h"
#include "tests/kernels/exactness.h"
#include "tests/kernels/group_norm_cases.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::expect_equal;
using prefusion::tests::near;
using prefusion::tests::relative_error;

class GroupNormTest : public DeviceTest {};

TEST_P(GroupNormTest, IsAsExactAsAtenForEveryDtypeAndShape) {
  at::manual_seed(1);
  // Groups of part of a packet and of several; chunks of 32 pixels, whole and cut.
  for (const GroupNormCase& c : {GroupNormCase{1, 4, 2, 3, 2},
                                 {2, 6, 1, 1, 2},
                                 {1, 20, 4, 8, 2},
                                 {3, 40, 3, 11, 4},
                                 {2, 64, 5, 13, 32},
                                 {1, 33, 7, 9, 11},
                                 {2, 320, 6, 6, 32},
                                 {1, 8, 40, 33, 1}}) {
    const GroupNormInputs exact_inputs = random_inputs(c);
    for (const bool with_silu : {false, true}) {
      const GroupNormOptions options{.num_groups = c.groups, .eps = 1e-5, .with_silu = with_silu};
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
        const GroupNormInputs inputs = exact_inputs.to(at::device(device()).dtype(dtype));
        const auto exact = differentiate(composed, inputs.to(at::kDouble), options);
        const auto theirs = differentiate(composed, inputs, options), found = differentiate(ours, inputs, options);
        for (size_t i = 0; i < exact.size(); ++i) {
          EXPECT_EQ(found[i].scalar_type(), dtype);
          EXPECT_LE(relative_error(found[i], exact[i]),
                    std::max(tests::rounding(dtype, 3e-7, 1e-12), 2 * relative_error(theirs[i], exact[i])))
              << c.batch << " x " << c.channels << " x " << c.height << " x " << c.width << " in " << c.groups << ", "
              << c10::toString(dtype) << ", silu " << with_silu << ", result " << i;
        }
      }
    }
  }
}

// A group of one channel takes the shift out again: it has no gradient. One of one element is its bias.
TEST_P(GroupNormTest, TakesGroupsOfOneChannelAndOfOneElement) {
  const GroupNormOptions options{.num_groups = 3};
  const auto results = differentiate(ours, random_inputs({2, 3, 4, 5, 3}).to(at::device(device())), options);
  EXPECT_LT(results[2].abs().max().item<double>(), 1e-12);
  const GroupNormInputs single = random_inputs({2, 3, 1, 1, 3}).to(at::device(device()));
  EXPECT_TRUE(at::equal(ours(single, options).flatten(1), single.bias.expand({2, 3})));
}

// A large mean must not swallow the deviation, as the mean of the squares less the square of the mean would; nor a
// first pixel far from all others, to which differences are taken.
TEST_P(GroupNormTest, KeepsTheDeviationOfALargeMeanAndOfAFarFirstPixel) {
  at::manual_seed(2);
  const GroupNormOptions options{.num_groups = 2};
  for (const bool is_far : {false, true}) {
    GroupNormInputs inputs = random_inputs({1, 8, 9, 9, 2});
    if (is_far) {
      inputs.input.select(2, 0).select(2, 0).add_(1e4);
    } else {
      inputs.input += 1000;
    }
    const GroupNormInputs rounded = inputs.to(at::device(device()).dtype(at::kFloat));
    const at::Tensor exact = composed(rounded.to(at::kDouble), options);
    EXPECT_TRUE(near(ours(rounded, options), exact, 2e-4)) << is_far;
  }
}

TEST_P(GroupNormTest, GradientsEqualFiniteDifferences) {
  at::manual_seed(3);
  const GroupNormInputs inputs = random_inputs({2, 6, 2, 3, 2}).to(at::device(device()));
  constexpr double kStep = 1e-5;
  for (const bool with_silu : {false, true}) {
    const GroupNormOptions options{.num_groups = 2, .eps = 1e-3, .with_silu = with_silu};
    const auto results = differentiate(ours, inputs, options);
    for (size_t which = 0; which < 4; ++which) {
      const at::Tensor gradient = results[which + 1].cpu().contiguous().flatten();
      for (int64_t i = 0; i < gradient.numel(); ++i) {
        const auto value = [&](double step) {
          GroupNormInputs moved{
              inputs.input.contiguous().clone(), inputs.shift.clone(), inputs.weight.clone(), inputs.bias.clone(), {}};
          at::Tensor* const tensors[] = {&moved.input, &moved.shift, &moved.weight, &moved.bias};
          tensors[which]->view({-1})[i] += step;
          return (ours(moved, options) * inputs.grad_output).sum().item<double>();
        };
        EXPECT_NEAR(gradient[i].item<double>(), (value(kStep) - value(-kStep)) / (2 * kStep), 2e-8)
            << which << ", " << i << ", silu " << with_silu;
      }
    }
  }
}

TEST_P(GroupNormTest, ReadsAnyLayoutAndAnswersInChannelsLast) {
  at::manual_seed(4);
  const GroupNormOptions options{.num_groups = 4, .with_silu = true};
  const GroupNormInputs inputs = random_inputs({2, 24, 5, 7, 4}).to(at::device(device()).dtype(at::kFloat));
  const auto expected = differentiate(ours, inputs, options);
  EXPECT_TRUE(expected[0].is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(expected[1].is_contiguous(at::MemoryFormat::ChannelsLast));
  const at::Tensor projected = at::randn({2, 48}).to(device());
  projected.slice(1, 0, 24).copy_(inputs.shift);
  const GroupNormInputs views{inputs.input.contiguous(), projected.slice(1, 0, 24),
                              inputs.weight.unsqueeze(1).expand({24, 2}).contiguous().select(1, 0), inputs.bias,
                              inputs.grad_output.contiguous()};
  const auto found = differentiate(ours, views, options);
  expect_equal(found, expected);
  EXPECT_TRUE(found[0].is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST_P(GroupNormTest, AddsNothingWithoutAShift) {
  const GroupNormOptions options{.num_groups = 3};
  GroupNormInputs inputs = random_inputs({2, 9, 4, 4, 3}).to(at::device(device()));
  inputs.shift.zero_();
  EXPECT_TRUE(at::equal(group_norm(inputs.input, {}, inputs.weight, inputs.bias, options), ours(inputs, options)));
}

TEST_P(GroupNormTest, LeavesOutGradientsThatAreNotWanted) {
  const GroupNormOptions options{.num_groups = 3, .with_silu = true};
  const GroupNormInputs inputs = random_inputs({2, 9, 7, 8, 3}).to(at::device(device()));
  const auto expected = differentiate(ours, inputs, options);
  const at::Tensor leaf = inputs.input.detach().requires_grad_();
  group_norm(leaf, inputs.shift, inputs.weight, inputs.bias, options).backward(inputs.grad_output);
  EXPECT_TRUE(at::equal(leaf.grad(), expected[1]));
  const at::Tensor bias = inputs.bias.detach().requires_grad_();
  group_norm(inputs.input, inputs.shift, inputs.weight, bias, options).backward(inputs.grad_output);
  EXPECT_TRUE(at::equal(bias.grad(), expected[4]));
}

TEST_P(GroupNormTest, RepeatsToTheBit) {
  at::manual_seed(5);
  const GroupNormOptions options{.num_groups = 8, .with_silu = true};
  const GroupNormInputs inputs = random_inputs({2, 64, 33, 17, 8}).to(at::device(device()).dtype(at::kFloat));
  expect_equal(differentiate(ours, inputs, options), differentiate(ours, inputs, options));
}

TEST_P(GroupNormTest, GivesAPictureTheSameInAnyBatch) {
  at::manual_seed(6);
  const GroupNormOptions options{.num_groups = 8, .with_silu = true};
  const GroupNormInputs inputs = random_inputs({3, 40, 9, 10, 8}).to(at::device(device()).dtype(at::kFloat));
  const at::Tensor together = ours(inputs, options);
  for (int64_t i = 0; i < 3; ++i) {
    const at::Tensor alone = group_norm(inputs.input.slice(0, i, i + 1), inputs.shift.slice(0, i, i + 1), inputs.weight,
                                        inputs.bias, options);
    EXPECT_TRUE(at::equal(alone[0], together[i])) << i;
  }
}

TEST_P(GroupNormTest, TakesAnEmptyBatch) {
  const GroupNormOptions options{.num_groups = 2};
  const GroupNormInputs inputs = random_inputs({0, 4, 3, 3, 2}).to(at::device(device()));
  const auto results = differentiate(ours, inputs, options);
  EXPECT_EQ(results[0].sizes(), inputs.input.sizes());
  EXPECT_TRUE(at::equal(results[3], at::zeros_like(inputs.weight)));
}

INSTANTIATE_TEST_SUITE_P(Devices, GroupNormTest, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(GroupNormCpu, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(7);
  const GroupNormOptions options{.num_groups = 8, .with_silu = true};
  const GroupNormInputs inputs = random_inputs({2, 256, 20, 21, 8}).to(at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = differentiate(ours, inputs, options);
  at::set_num_threads(2);
  const auto two = differentiate(ours, inputs, options);
  at::set_num_threads(threads);
  expect_equal(two, one);
}

TEST(GroupNormCpu, RefusesWhatItCannotDo) {
  const at::Tensor input = at::randn({2, 6, 3, 3}), row = at::randn({6});
  const GroupNormOptions two{.num_groups = 2};
  EXPECT_THROW(group_norm(input[0], {}, row, row, two), Error);
  EXPECT_THROW(group_norm(input, {}, row, row, {.num_groups = 4}), Error);
  EXPECT_THROW(group_norm(input, {}, row, row, {.num_groups = 0}), Error);
  EXPECT_THROW(group_norm(input, {}, at::randn({5}), row, two), Error);
  EXPECT_THROW(group_norm(input, {}, row, at::Tensor(), two), Error);
  EXPECT_THROW(group_norm(input, row, row, row, two), Error);
  EXPECT_THROW(group_norm(input, {}, row.to(at::kBFloat16), row, two), Error);
  EXPECT_THROW(group_norm(input.to(at::kLong), {}, row.to(at::kLong), row.to(at::kLong), two), Error);
  EXPECT_THROW(group_norm(at::randn({2, 6, 0, 3}), {}, row, row, two), Error);
  const at::Tensor leaf = input.clone().requires_grad_();
  const at::Tensor sum = group_norm(leaf, {}, row, row, two).sum();
  EXPECT_THROW(sum.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::exception);
}

}  // namespace
}  // namespace prefusion::kernels

#include "kernels/geglu/geglu.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "kernels/geglu/geglu_packets.h"
#include "tests/kernels/device_test.h"
#include "tests/kernels/exactness.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::near;
using prefusion::tests::relative_error;

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble};

at::Tensor composed(const at::Tensor& input) {
  const auto halves = input.chunk(2, -1);
  return halves[0] * at::gelu(halves[1]);
}

struct Result {
  at::Tensor output, gradient;
};

template <typename Operation>
Result differentiate(const Operation& operation, const at::Tensor& input, const at::Tensor& grad_output) {
  const at::Tensor leaf = input.detach().requires_grad_();
  const at::Tensor output = operation(leaf);
  return {output.detach(), torch::autograd::grad({output}, {leaf}, {grad_output})[0]};
}

// Ours may err twice as much as ATen does in the same dtype; `floor` where ATen happens to be exact.
void expect_as_exact(const at::Tensor& ours, const at::Tensor& theirs, const at::Tensor& exact, double floor) {
  EXPECT_EQ(ours.scalar_type(), theirs.scalar_type());
  EXPECT_LE(relative_error(ours, exact), std::max(floor, 2 * relative_error(theirs, exact)));
}

class GegluTest : public DeviceTest {};

TEST_P(GegluTest, IsAsExactAsAtenForEveryDtypeAndShape) {
  at::manual_seed(1);
  const std::vector<std::vector<int64_t>> shapes = {{2},         {1, 1, 2},   {3, 5, 6},     {2, 7, 34},  {5, 254},
                                                    {2, 9, 258}, {1, 3, 640}, {2, 64, 2560}, {16411, 10}, {3, 20006}};
  for (const auto& shape : shapes) {
    const at::Tensor exact_input = at::randn(shape, at::kDouble) * 3;
    std::vector<int64_t> half = shape;
    half.back() /= 2;
    const at::Tensor exact_grad = at::randn(half, at::kDouble);
    for (const at::ScalarType dtype : kDtypes) {
      SCOPED_TRACE(shape_text(shape) + " " + c10::toString(dtype));
      const at::Tensor input = exact_input.to(device(), dtype), grad = exact_grad.to(device(), dtype);
      const Result exact = differentiate(composed, input.to(at::kDouble), grad.to(at::kDouble));
      const Result theirs = differentiate(composed, input, grad);
      const Result ours = differentiate(geglu, input, grad);
      expect_as_exact(ours.output, theirs.output, exact.output, tests::rounding(dtype, 2.4e-7, 4e-16));
      expect_as_exact(ours.gradient, theirs.gradient, exact.gradient, tests::rounding(dtype, 2.4e-7, 4e-16));
    }
  }
}

TEST_P(GegluTest, GradientEqualsFiniteDifferences) {
  at::manual_seed(2);
  const at::Tensor input = at::randn({2, 3, 10}, at::kDouble).to(device());
  const at::Tensor weights = at::randn({2, 3, 5}, at::kDouble).to(device());
  const at::Tensor gradient = differentiate(geglu, input, weights).gradient.flatten().cpu();
  constexpr double kStep = 1e-5;
  for (int64_t i = 0; i < input.numel(); ++i) {
    const auto value = [&](double step) {
      at::Tensor moved = input.clone();
      moved.view({-1})[i] += step;
      return (geglu(moved) * weights).sum().item<double>();
    };
    EXPECT_NEAR(gradient[i].item<double>(), (value(kStep) - value(-kStep)) / (2 * kStep), 1e-9) << i;
  }
}

TEST_P(GegluTest, ReadsNonContiguousInputsAndGradients) {
  at::manual_seed(3);
  const at::Tensor grad = at::randn({5, 3, 4}).to(device()).permute({1, 2, 0});  // [3, 4, 5]
  for (const at::Tensor& input :
       {at::randn({4, 3, 10}).to(device()).transpose(0, 1), at::randn({3, 4, 13}).to(device()).narrow(-1, 1, 10),
        at::randn({1, 4, 10}).to(device()).expand({3, 4, 10})}) {
    const Result dense = differentiate(geglu, input.contiguous(), grad.contiguous());
    const Result found = differentiate(geglu, input, grad);
    EXPECT_TRUE(at::equal(found.output, dense.output));
    EXPECT_TRUE(at::equal(found.gradient, dense.gradient));
  }
}

TEST_P(GegluTest, ReadsDataThatStartAnywhere) {
  at::manual_seed(4);
  for (const at::ScalarType dtype : kDtypes) {
    const at::Tensor storage = at::randn({1 + 3 * 64}).to(device(), dtype);
    const at::Tensor input = storage.narrow(0, 1, 3 * 64).view({3, 64});
    EXPECT_TRUE(at::equal(geglu(input), geglu(input.clone()))) << c10::toString(dtype);
  }
}

TEST_P(GegluTest, RepeatsToTheBit) {
  at::manual_seed(5);
  const at::Tensor input = at::randn({2, 301, 514}).to(device()), grad = at::randn({2, 301, 257}).to(device());
  const Result first = differentiate(geglu, input, grad), second = differentiate(geglu, input, grad);
  EXPECT_TRUE(at::equal(first.output, second.output));
  EXPECT_TRUE(at::equal(first.gradient, second.gradient));
}

TEST_P(GegluTest, TakesAnEmptyBatch) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{{0, 4, 6}, {2, 0, 6}, {2, 3, 0}}) {
    const at::Tensor input = at::empty(shape, at::device(device())).requires_grad_();
    const at::Tensor output = geglu(input);
    EXPECT_EQ(output.size(-1), shape[2] / 2);
    output.sum().backward();
    EXPECT_EQ(input.grad().sizes(), input.sizes());
  }
}

TEST_P(GegluTest, KeepsInfinityAndNotANumber) {
  const float inf = INFINITY;
  const at::Tensor gates = at::tensor({inf, -1e30f, 1e30f, NAN, -88.0f, -14.0f, 0.0f, -0.0f, 14.0f, 88.0f});
  const at::Tensor input = at::cat({at::ones_like(gates), gates}).to(device());
  const at::Tensor found = geglu(input).cpu();
  EXPECT_EQ(found[0].item<float>(), inf);
  EXPECT_EQ(found[1].item<float>(), 0.0f);
  EXPECT_EQ(found[2].item<float>(), 1e30f);
  EXPECT_TRUE(std::isnan(found[3].item<float>()));
  for (int i = 4; i < gates.numel(); ++i) {
    EXPECT_NEAR(found[i].item<float>(), std::max(0.0f, gates[i].item<float>()), 1e-30) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, GegluTest, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

// Without their relative accuracy far tails would be zero from -5.5 on, as 1 + erf(x) makes them.
TEST(NormalLaw, IsAccurateFromTailToTail) {
  double worst_cdf = 0, worst_density = 0;
  for (int i = -13000; i <= 13000; ++i) {
    const float x = static_cast<float>(i) * 1e-3f;
    const NormalLaw<float> law = normal_law(x);
    const NormalLaw<double> exact = normal_law(static_cast<double>(x));
    // x^2 / 2 is rounded before it is exponentiated.
    const double scale = 1 + 0.25 * static_cast<double>(x) * x;
    worst_cdf = std::max(worst_cdf, std::abs(law.cdf / exact.cdf - 1) / (x < 0 ? scale : 1));
    worst_density = std::max(worst_density, std::abs(law.density / exact.density - 1) / scale);
  }
  EXPECT_LT(worst_cdf, 5e-7);
  EXPECT_LT(worst_density, 3e-7);
}

// The GPU's kernel, thread after thread: `threads` of them share the packets.
template <int kSize, typename T, typename Real>
Result run_packets(const at::Tensor& input, const at::Tensor& grad_output, uint32_t threads) {
  const int64_t width = input.size(-1) / 2;
  Result result{at::full_like(grad_output, NAN), at::full_like(input, NAN)};
  GegluPackets<kSize, T, Real> packets{.input = input.const_data_ptr<T>(),
                                       .grad_output = grad_output.const_data_ptr<T>(),
                                       .output = nullptr,
                                       .rows = input.numel() / (2 * width),
                                       .width = width};
  const auto per_row = static_cast<uint32_t>(width / kSize);
  int64_t visits = 0;
  for (uint32_t thread = 0; thread < threads; ++thread) {
    for (PacketWalk walk(thread, threads, per_row); walk.row() < packets.rows; walk.advance(), ++visits) {
      packets.output = result.output.mutable_data_ptr<T>();
      packets.forward(walk.row(), walk.place());
      packets.output = result.gradient.mutable_data_ptr<T>();
      packets.backward(walk.row(), walk.place());
    }
  }
  EXPECT_EQ(visits, packets.rows * per_row);
  return result;
}

template <typename T, typename Real, int kSize>
void expect_packets_cover(int64_t rows, int64_t width) {
  const at::ScalarType dtype = c10::CppTypeToScalarType<T>::value;
  const at::Tensor input = at::randn({rows, 2 * width}).to(dtype), grad = at::randn({rows, width}).to(dtype);
  const Result expected = differentiate(geglu, input, grad);
  for (const uint32_t threads : {1u, 3u, 64u, 1000u}) {
    const Result found = run_packets<kSize, T, Real>(input, grad, threads);
    EXPECT_TRUE(near(found.output, expected.output, 2 * tests::rounding(dtype, 2.4e-7, 4e-16)))
        << rows << " x " << width << ", " << threads;
    EXPECT_TRUE(near(found.gradient, expected.gradient, 2 * tests::rounding(dtype, 2.4e-7, 4e-16)))
        << rows << " x " << width << ", " << threads;
  }
}

TEST(GegluPacketsTest, CoverEveryElementOnce) {
  at::manual_seed(6);
  for (const int64_t rows : {1, 2, 7, 65}) {
    for (const int64_t width : {1, 3, 8, 31, 40, 128}) {
      expect_packets_cover<float, float, 1>(rows, width);
      expect_packets_cover<at::BFloat16, float, 1>(rows, width);
      if (width % 8 != 0) continue;
      expect_packets_cover<float, float, kPacketSize<float>>(rows, width);
      expect_packets_cover<at::BFloat16, float, kPacketSize<at::BFloat16>>(rows, width);
      expect_packets_cover<at::Half, float, kPacketSize<at::Half>>(rows, width);
      expect_packets_cover<double, double, kPacketSize<double>>(rows, width);
    }
  }
}

TEST(GegluPacketsTest, TakeAlignedRowsAlone) {
  alignas(16) const float values[8] = {};
  EXPECT_TRUE(takes_packets(values, 8));
  EXPECT_FALSE(takes_packets(values, 6));
  EXPECT_FALSE(takes_packets(values + 1, 8));
  EXPECT_TRUE(takes_packets(values + 4, 4));
}

TEST(GegluCpu, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(7);
  const at::Tensor input = at::randn({3, 96, 1022}), grad = at::randn({3, 96, 511});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Result one = differentiate(geglu, input, grad);
  at::set_num_threads(2);
  const Result two = differentiate(geglu, input, grad);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(two.output, one.output));
  EXPECT_TRUE(at::equal(two.gradient, one.gradient));
}

TEST(GegluCpu, RefusesWhatItCannotDo) {
  EXPECT_THROW(geglu(at::randn({2, 5})), Error);
  EXPECT_THROW(geglu(at::Tensor()), Error);
  EXPECT_THROW(geglu(at::randn({})), Error);
  EXPECT_THROW(geglu(at::ones({2, 4}, at::kLong)), Error);
  EXPECT_THROW(geglu(at::empty({2, 4}, at::device(at::kMeta))), Error);
  const at::Tensor leaf = at::randn({2, 4}).requires_grad_();
  const at::Tensor sum = geglu(leaf).sum();
  EXPECT_THROW(sum.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::exception);
}

}  // namespace
}  // namespace prefusion::kernels

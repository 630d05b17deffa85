#include "kernels/gated_residual/gated_residual.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "core/error.h"
#include "kernels/gated_residual/gated_columns.h"
#include "tests/kernels/device_test.h"
#include "tests/kernels/exactness.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::expect_equal;
using prefusion::tests::near;
using prefusion::tests::relative_error;

struct Inputs {
  at::Tensor states, output, gate, grad;

  Inputs to(const at::TensorOptions& options) const {
    return {states.to(options), output.to(options), gate.to(options), grad.to(options)};
  }
};

Inputs random_inputs(int64_t batch, int64_t rows, int64_t width) {
  return {at::randn({batch, rows, width}, at::kDouble), at::randn({batch, rows, width}, at::kDouble),
          at::randn({batch, width}, at::kDouble), at::randn({batch, rows, width}, at::kDouble)};
}

at::Tensor composed(const at::Tensor& states, const at::Tensor& output, const at::Tensor& gate) {
  return states + gate.unsqueeze(1) * output;
}

// The result, then the gradients of states, output and gate.
template <typename Operation>
std::vector<at::Tensor> differentiate(const Operation& operation, const Inputs& inputs) {
  const at::Tensor states = inputs.states.detach().requires_grad_(), output = inputs.output.detach().requires_grad_(),
                   gate = inputs.gate.detach().requires_grad_();
  const at::Tensor result = operation(states, output, gate);
  auto results = torch::autograd::grad({result}, {states, output, gate}, {inputs.grad});
  results.insert(results.begin(), result.detach());
  return results;
}

class GatedResidualTest : public DeviceTest {};

TEST_P(GatedResidualTest, IsAsExactAsAtenForEveryDtypeAndShape) {
  at::manual_seed(1);
  const int64_t shapes[][3] = {{1, 1, 1},  {2, 3, 5},   {3, 1, 31},   {2, 63, 32},  {2, 64, 33}, {1, 65, 64},
                               {2, 7, 96}, {2, 130, 8}, {1, 77, 257}, {1, 3, 3072}, {2, 300, 40}};
  for (const auto& [batch, rows, width] : shapes) {
    const Inputs exact_inputs = random_inputs(batch, rows, width);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      const Inputs inputs = exact_inputs.to(at::device(device()).dtype(dtype));
      const auto exact = differentiate(composed, inputs.to(at::device(device()).dtype(at::kDouble)));
      const auto theirs = differentiate(composed, inputs), found = differentiate(gated_residual, inputs);
      for (size_t i = 0; i < exact.size(); ++i) {
        EXPECT_EQ(found[i].scalar_type(), dtype);
        EXPECT_LE(relative_error(found[i], exact[i]),
                  std::max(tests::rounding(dtype, 3e-7, 2e-14), 2 * relative_error(theirs[i], exact[i])))
            << batch << " x " << rows << " x " << width << " " << c10::toString(dtype) << ", result " << i;
      }
    }
  }
}

TEST_P(GatedResidualTest, ReadsViewsOfOneProjection) {
  at::manual_seed(4);
  for (const int64_t width : {12, 7, 64}) {
    const Inputs inputs = random_inputs(3, 70, width).to(at::device(device()).dtype(at::kFloat));
    const auto expected = differentiate(gated_residual, inputs);
    const auto parts = at::randn({3, 6 * width}).to(device()).chunk(6, 1);
    parts[2].copy_(inputs.gate);
    Inputs views{inputs.states, inputs.output.transpose(0, 1).contiguous().transpose(0, 1), parts[2],
                 inputs.grad.transpose(1, 2).contiguous().transpose(1, 2)};
    expect_equal(differentiate(gated_residual, views), expected);
    views.gate = inputs.gate.t().contiguous().t();
    expect_equal(differentiate(gated_residual, views), expected);
    // One row for all items, and a gradient that is one number.
    views.gate = inputs.gate.narrow(0, 0, 1).expand({3, width});
    views.grad = at::ones({1, 1, 1}, inputs.states.options()).expand(inputs.states.sizes());
    const auto found = differentiate(gated_residual, views), theirs = differentiate(composed, views);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(near(found[i], theirs[i], 1e-5)) << i;
  }
}

TEST_P(GatedResidualTest, GatesWithoutGradientsAreNotSummed) {
  const Inputs inputs = random_inputs(2, 70, 9).to(at::device(device()));
  const auto expected = differentiate(gated_residual, inputs);
  const at::Tensor states = inputs.states.detach().requires_grad_(), output = inputs.output.detach().requires_grad_();
  const at::Tensor result = gated_residual(states, output, inputs.gate);
  EXPECT_TRUE(at::equal(result, expected[0]));
  result.backward(inputs.grad);
  EXPECT_TRUE(at::equal(states.grad(), expected[1]));
  EXPECT_TRUE(at::equal(output.grad(), expected[2]));
  const at::Tensor gate = inputs.gate.detach().requires_grad_();
  gated_residual(inputs.states, inputs.output, gate).backward(inputs.grad);
  EXPECT_TRUE(at::equal(gate.grad(), expected[3]));
}

TEST_P(GatedResidualTest, TakesAnEmptyBatch) {
  for (const auto& [batch, rows] : {std::pair<int64_t, int64_t>{0, 4}, {3, 0}}) {
    const Inputs inputs = random_inputs(batch, rows, 8).to(at::device(device()));
    const auto results = differentiate(gated_residual, inputs);
    EXPECT_EQ(results[0].sizes(), inputs.states.sizes());
    EXPECT_TRUE(at::equal(results[3], at::zeros_like(inputs.gate)));
  }
}

TEST_P(GatedResidualTest, RepeatsToTheBit) {
  at::manual_seed(5);
  const Inputs inputs = random_inputs(2, 257, 130).to(at::device(device()).dtype(at::kFloat));
  expect_equal(differentiate(gated_residual, inputs), differentiate(gated_residual, inputs));
}

INSTANTIATE_TEST_SUITE_P(Devices, GatedResidualTest, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(GatedResidualCpu, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(7);
  const Inputs inputs = random_inputs(2, 200, 258).to(at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = differentiate(gated_residual, inputs);
  at::set_num_threads(2);
  const auto two = differentiate(gated_residual, inputs);
  at::set_num_threads(threads);
  expect_equal(two, one);
}

TEST(GatedResidualCpu, RefusesWhatItCannotDo) {
  const at::Tensor states = at::randn({2, 3, 4}), gate = at::randn({2, 4});
  EXPECT_THROW(gated_residual(states[0], states[0], gate), Error);
  EXPECT_THROW(gated_residual(states, at::randn({2, 3, 5}), gate), Error);
  EXPECT_THROW(gated_residual(states, states, gate.unsqueeze(1)), Error);
  EXPECT_THROW(gated_residual(states, states, gate.to(at::kDouble)), Error);
  EXPECT_THROW(gated_residual(states.to(at::kLong), states.to(at::kLong), gate.to(at::kLong)), Error);
  EXPECT_THROW(gated_residual(states, at::Tensor(), gate), Error);
  const at::Tensor leaf = gate.clone().requires_grad_();
  const at::Tensor sum = gated_residual(states, states, leaf).sum();
  EXPECT_THROW(sum.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::exception);
}

// The GPU's kernel, thread after thread.
template <int kSize, typename T>
void check_columns(int64_t batch, int64_t rows, int64_t width) {
  SCOPED_TRACE(testing::Message() << batch << " x " << rows << " x " << width << ", packets of " << kSize);
  const at::ScalarType dtype = c10::CppTypeToScalarType<T>::value;
  const Inputs inputs = random_inputs(batch, rows, width).to(at::device(at::kCPU).dtype(dtype));
  const int64_t chunk_rows = 16, chunks = (rows + chunk_rows - 1) / chunk_rows;
  const at::Tensor grad_output = at::full_like(inputs.output, NAN), partial = at::full({batch, chunks, width}, NAN);
  const GatedColumns<kSize, T, float> columns{.grad = inputs.grad.const_data_ptr<T>(),
                                              .output = inputs.output.const_data_ptr<T>(),
                                              .gate = inputs.gate.const_data_ptr<T>(),
                                              .grad_output = grad_output.mutable_data_ptr<T>(),
                                              .partial = partial.mutable_data_ptr<float>(),
                                              .rows_per_item = rows,
                                              .width = width,
                                              .gate_stride = width,
                                              .chunk_rows = chunk_rows,
                                              .chunks = chunks};
  for (int64_t item = 0; item < batch; ++item) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (int64_t column = 0; column < width; column += kSize) columns.differentiate(item, chunk, column);
    }
  }
  const auto expected = differentiate(gated_residual, inputs);
  EXPECT_TRUE(at::equal(grad_output, expected[2]));
  EXPECT_TRUE(near(partial.sum(1).to(dtype), expected[3], dtype == at::kFloat ? 1e-6 : 1e-2));
}

TEST(GatedColumnsTest, CoverEveryElement) {
  at::manual_seed(9);
  check_columns<1, float>(2, 35, 7);
  check_columns<4, float>(2, 33, 20);
  check_columns<8, at::BFloat16>(3, 16, 24);
  check_columns<1, at::Half>(1, 1, 3);
}

}  // namespace
}  // namespace prefusion::kernels

// Against torch.utils.flop_counter (tests/reference/make_flops.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "core/flop_counter.h"
#include "tests/support/python_reference.h"

namespace prefusion {
namespace {

using Tensors = std::vector<at::Tensor>;

struct Case {
  const char* name;
  std::vector<std::vector<int64_t>> shapes;
  std::function<at::Tensor(const Tensors&)> run;
};

// As in the script.
std::vector<Case> cases() {
  const auto linear = [](const Tensors& x) { return at::linear(x[0], x[1], x.size() > 2 ? x[2] : at::Tensor()); };
  const auto matmul = [](const Tensors& x) { return at::matmul(x[0], x[1]); };
  return {
      {"linear", {{2, 5, 7}, {3, 7}, {3}}, linear},
      {"linear_without_bias", {{4, 6}, {8, 6}}, linear},
      {"batched_product", {{2, 3, 4, 5}, {2, 3, 5, 6}}, matmul},
      {"broadcast_product", {{6, 4, 5}, {5, 2}}, matmul},
      {"convolution",
       {{2, 3, 9, 8}, {5, 3, 3, 3}, {5}},
       [](const Tensors& x) { return at::conv2d(x[0], x[1], x[2], 1, 1); }},
      {"strided_convolution",
       {{1, 4, 11, 7}, {6, 4, 3, 2}},
       [](const Tensors& x) {
         return at::conv2d(x[0], x[1], {}, c10::IntArrayRef{2, 1}, c10::IntArrayRef{0, 1}, c10::IntArrayRef{1, 2});
       }},
      {"convolution_1d", {{2, 3, 10}, {4, 3, 5}}, [](const Tensors& x) { return at::conv1d(x[0], x[1], {}, 2); }},
      {"transposed_convolution",
       {{2, 3, 5, 4}, {3, 6, 4, 4}},
       [](const Tensors& x) { return at::conv_transpose2d(x[0], x[1], {}, 2, 1); }},
  };
}

TEST(FlopCounterReference, CountsWhatTorchCountsForwardAndBackward) {
  std::ifstream file(tests::run_reference_script("make_flops.py") / "counts.json");
  const auto counts = nlohmann::json::parse(file);
  ASSERT_EQ(counts.size(), cases().size());
  for (const Case& example : cases()) {
    Tensors inputs;
    for (const auto& shape : example.shapes) inputs.push_back(at::randn(shape).requires_grad_());
    FlopCounter counter;
    const at::Tensor output = example.run(inputs);
    EXPECT_EQ(counter.total(), counts.at(example.name).at(0).get<int64_t>()) << example.name;
    output.sum().backward();
    EXPECT_EQ(counter.total(), counts.at(example.name).at(1).get<int64_t>()) << example.name;
  }
}

}  // namespace
}  // namespace prefusion

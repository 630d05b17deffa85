#include "nn/lean_ops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "core/error.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "nn/lora_linear.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, DrawKey{3, item, 0}, RandomPurpose::kOther);
}

using Operation = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Values equal bit for bit, gradients to rounding, for inputs of which `trained` need gradients.
void expect_same(const Operation& lean, const Operation& plain, const std::vector<at::Tensor>& inputs,
                 const std::vector<bool>& trained) {
  std::vector<std::vector<at::Tensor>> gradients;
  std::vector<at::Tensor> outputs;
  for (const Operation& operation : {lean, plain}) {
    std::vector<at::Tensor> leaves, wanted;
    for (size_t i = 0; i < inputs.size(); ++i) {
      leaves.push_back(inputs[i].detach().clone().set_requires_grad(trained[i]));
      if (trained[i]) wanted.push_back(leaves.back());
    }
    outputs.push_back(operation(leaves));
    gradients.push_back(torch::autograd::grad({outputs.back()}, wanted, {random(outputs.back().sizes(), 99)}));
  }
  EXPECT_TRUE(at::equal(outputs[0], outputs[1]));
  for (size_t i = 0; i < gradients[0].size(); ++i)
    EXPECT_TRUE(tests::near(gradients[0][i], gradients[1][i], 1e-5)) << i;
}

at::Tensor composed_lora(const std::vector<at::Tensor>& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x[0], weight, bias) + 0.7 * at::linear(at::linear(x[0], x[1]), x[2]);
}

TEST(LoraLinear, EqualsLayerAndBranchWhateverIsTrained) {
  const at::Tensor weight = random({6, 9}, 1), A = random({3, 9}, 2), B = random({6, 3}, 3);
  const std::vector<at::Tensor> inputs = {random({5, 9}, 4), random({2, 4, 9}, 5), random({2, 3, 4, 9}, 6),
                                          random({4, 2, 9}, 7).transpose(0, 1), random({9, 5}, 8).t()};
  for (const at::Tensor& input : inputs) {
    for (const at::Tensor& bias : {random({6}, 9), at::Tensor()}) {
      for (int trained = 1; trained < 8; ++trained) {
        SCOPED_TRACE(testing::Message() << input.sizes() << ", trained " << trained);
        std::vector<std::vector<at::Tensor>> results;
        for (const bool is_lean : {true, false}) {
          std::vector<at::Tensor> leaves = {input.detach(), A.detach(), B.detach()}, wanted;
          for (size_t i = 0; i < 3; ++i) {
            leaves[i] = leaves[i].detach().set_requires_grad((trained >> i & 1) != 0);
            if (leaves[i].requires_grad()) wanted.push_back(leaves[i]);
          }
          const at::Tensor output = is_lean ? lora_linear(leaves[0], {weight, nullptr, bias}, leaves[1], leaves[2], 0.7)
                                            : composed_lora(leaves, weight, bias);
          results.push_back(torch::autograd::grad({output}, wanted, {random(output.sizes(), 99)}));
          results.back().push_back(output.detach());
        }
        for (size_t i = 0; i < results[0].size(); ++i) {
          EXPECT_EQ(results[0][i].sizes(), results[1][i].sizes());
          EXPECT_TRUE(tests::near(results[0][i], results[1][i], 1e-5)) << i;
        }
      }
    }
  }
}

// A branch whose B is zero changes no bit: a policy begins as its reference.
TEST(LoraLinear, AnEmptyBranchIsNotThere) {
  const at::Tensor weight = random({64, 48}, 1), bias = random({64}, 2), input = random({2, 33, 48}, 3);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto to = [&](const at::Tensor& tensor) { return tensor.to(dtype); };
    const at::Tensor A = to(random({4, 48}, 4)), B = at::zeros({64, 4}, dtype);
    EXPECT_TRUE(at::equal(lora_linear(to(input), {to(weight), nullptr, to(bias)}, A, B, 2.0),
                          at::linear(to(input), to(weight), to(bias))));
  }
}

TEST(LoraLinear, BranchesThatAreNotTrainedKeepNothing) {
  const at::Tensor weight = random({6, 9}, 1), A = random({3, 9}, 2), B = random({6, 3}, 3);
  at::Tensor input = random({5, 9}, 4).set_requires_grad(true) * 1.0;
  const c10::weak_intrusive_ptr<c10::StorageImpl> memory = input.storage().getWeakStorageImpl();
  const at::Tensor output = lora_linear(input, {weight, nullptr, {}}, A, B, 1.0);
  input.reset();
  EXPECT_TRUE(memory.expired());
}

TEST(LoraLinear, WeightsInTrainingAreRefused) {
  const at::Tensor weight = random({6, 9}, 1), A = random({3, 9}, 2), B = random({6, 3}, 3), input = random({5, 9}, 4);
  EXPECT_THROW(lora_linear(input, {weight.clone().set_requires_grad(true), nullptr, {}}, A, B, 1.0), Error);
  EXPECT_THROW(lora_linear(input, {weight, nullptr, random({6}, 5).set_requires_grad(true)}, A, B, 1.0), Error);
}

TEST(LeanOps, FrozenConvolutionHasTheSameGradient) {
  for (const auto& [size, kernel, stride, padding] :
       {std::tuple{9, 3, 1, 1}, {8, 3, 2, 1}, {7, 1, 1, 0}, {9, 3, 2, 0}}) {
    for (const bool channels_last : {false, true}) {
      at::Tensor input = random({2, 6, size, size + 2}, 1);
      if (channels_last) input = input.contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor weight = random({5, 6, kernel, kernel}, 2);
      for (const at::Tensor& bias : {random({5}, 3), at::Tensor()}) {
        const auto lean = [&, s = stride, p = padding](const auto& x) {
          return frozen_conv2d(x[0], weight, bias, s, p);
        };
        const auto plain = [&, s = stride, p = padding](const auto& x) {
          return at::conv2d(x[0], weight, bias, {s, s}, {p, p});
        };
        expect_same(lean, plain, {input}, {true});
      }
    }
  }
}

TEST(LeanOps, GroupNormSiluHasTheSameGradients) {
  const at::Tensor weight = random({8}, 2), bias = random({8}, 3);
  const auto lean = [](const auto& x) { return group_norm_silu(x[0], 4, x[1], x[2], 1e-5); };
  const auto plain = [](const auto& x) { return at::silu(at::group_norm(x[0], 4, x[1], x[2], 1e-5)); };
  for (const at::Tensor& input :
       {random({3, 8, 5, 7}, 1), random({3, 8, 6}, 1),
        random({3, 8, 5, 7}, 1).contiguous(at::MemoryFormat::ChannelsLast), random({3, 5, 8, 7}, 1).transpose(1, 2)}) {
    expect_same(lean, plain, {input, weight, bias}, {true, true, true});
    expect_same(lean, plain, {input, weight, bias}, {true, false, false});
  }
  expect_same(lean, plain, {random({3, 8, 5, 7}, 1), weight, bias}, {false, true, true});
}

TEST(LeanOps, KeepsTooMuchOnlyWhereAFrozenWeightMeetsAGradient) {
  const at::Tensor weight = at::ones({2}), trained = at::ones({2}).set_requires_grad(true);
  EXPECT_TRUE(keeps_too_much(trained, weight, {}));
  EXPECT_FALSE(keeps_too_much(weight, weight, {}));
  EXPECT_FALSE(keeps_too_much(trained, trained, {}));
  EXPECT_FALSE(keeps_too_much(trained, weight, trained));
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(keeps_too_much(trained, weight, {}));
}

// Tensors a graph holds on to, found by their storages being alive after their handles are gone.
TEST(LeanOps, FrozenConvolutionDoesNotKeepItsInput) {
  const at::Tensor weight = random({4, 4, 3, 3}, 2);
  const at::Tensor leaf = random({1, 4, 6, 6}, 1).set_requires_grad(true);
  at::Tensor input = leaf * 2;
  const c10::weak_intrusive_ptr<c10::StorageImpl> storage(input.storage().getWeakStorageImpl());
  const at::Tensor output = frozen_conv2d(input, weight, {}, 1, 1);
  input.reset();
  EXPECT_TRUE(storage.expired());
  EXPECT_TRUE(output.requires_grad());
}

}  // namespace
}  // namespace prefusion::nn

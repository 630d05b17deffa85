#include "nn/lean_ops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "core/rng.h"
#include "nn/layers.h"
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

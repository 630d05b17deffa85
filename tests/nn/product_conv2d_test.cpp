#include "nn/product_conv2d.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/rng.h"
#include "nn/layers.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, DrawKey{4, item, 0}, RandomPurpose::kOther);
}

struct ConvCase {
  int64_t batch, height, width, kernel, stride, padding;
};

// Output and the gradients of what is trained, of product_conv2d or of at::conv2d.
std::vector<at::Tensor> differentiate(bool as_product, const ConvCase& c, bool has_bias, bool trains_weight) {
  const at::Tensor input = random({c.batch, 6, c.height, c.width}, 1).set_requires_grad(true);
  const at::Tensor weight = random({5, 6, c.kernel, c.kernel}, 2).set_requires_grad(trains_weight);
  const at::Tensor bias = has_bias ? random({5}, 3).set_requires_grad(trains_weight) : at::Tensor();
  const at::Tensor output = as_product ? product_conv2d(input, weight, bias, c.stride, c.padding)
                                       : at::conv2d(input, weight, bias, {c.stride, c.stride}, {c.padding, c.padding});
  std::vector<at::Tensor> trained{input};
  if (trains_weight) trained.push_back(weight);
  if (trains_weight && has_bias) trained.push_back(bias);
  std::vector<at::Tensor> found = torch::autograd::grad({output}, trained, {random(output.sizes(), 9)});
  found.insert(found.begin(), output.detach());
  return found;
}

TEST(ProductConv2d, HasTheValuesAndGradientsOfAConvolution) {
  for (const ConvCase& c : {ConvCase{1, 4, 4, 3, 1, 1},
                            {3, 5, 7, 3, 1, 1},
                            {2, 8, 6, 3, 2, 1},
                            {2, 9, 7, 3, 2, 0},
                            {3, 5, 4, 1, 1, 0},
                            {2, 5, 4, 1, 2, 0},
                            {1, 1, 1, 3, 1, 1},
                            {2, 7, 6, 5, 1, 2}}) {
    for (const bool has_bias : {true, false}) {
      for (const bool trains_weight : {true, false}) {
        SCOPED_TRACE(testing::Message() << c.batch << " x " << c.height << " x " << c.width << ", window " << c.kernel
                                        << " bias " << has_bias << " trained " << trains_weight);
        const auto found = differentiate(true, c, has_bias, trains_weight);
        const auto expected = differentiate(false, c, has_bias, trains_weight);
        ASSERT_EQ(found.size(), expected.size());
        for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(tests::near(found[i], expected[i], 1e-5)) << i;
      }
    }
  }
}

TEST(ProductConv2d, TakesInputsOfAnyLayout) {
  const at::Tensor weight = random({5, 6, 1, 1}, 2);
  for (const at::Tensor& input : {random({2, 6, 5, 4}, 1).contiguous(at::MemoryFormat::ChannelsLast),
                                  random({2, 6, 4, 5}, 1).transpose(2, 3), random({2, 12, 5, 4}, 1).slice(1, 3, 9)}) {
    EXPECT_TRUE(tests::near(product_conv2d(input, weight, {}, 1, 0), at::conv2d(input, weight), 1e-5));
  }
}

TEST(ProductConv2d, OfAPictureIsTheSameInAnyBatch) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [channels, size] : {std::pair<int64_t, int64_t>{6, 5}, {64, 16}, {96, 33}, {320, 8}}) {
      const at::Tensor input = random({5, channels, size, size + 1}, 1).to(dtype),
                       weight = random({channels + 3, channels, 1, 1}, 2).to(dtype);
      const at::Tensor together = product_conv2d(input, weight, {}, 1, 0);
      for (int64_t i = 0; i < input.size(0); ++i) {
        const at::Tensor alone = product_conv2d(input.slice(0, i, i + 1), weight, {}, 1, 0);
        EXPECT_TRUE(at::equal(alone[0], together[i])) << channels << " channels, picture " << i;
      }
    }
  }
}

TEST(ProductConv2d, KeepsItsInputOnlyForAWeightThatIsTrained) {
  for (const bool trains_weight : {true, false}) {
    const at::Tensor weight = random({4, 4, 3, 3}, 2).set_requires_grad(trains_weight);
    const at::Tensor leaf = random({1, 4, 6, 6}, 1).set_requires_grad(true);
    at::Tensor input = leaf * 2;
    const c10::weak_intrusive_ptr<c10::StorageImpl> storage(input.storage().getWeakStorageImpl());
    const at::Tensor output = product_conv2d(input, weight, {}, 1, 1);
    input.reset();
    EXPECT_EQ(storage.expired(), !trains_weight);
  }
}

TEST(ProductConv2d, IsForSinglePixelsAndForLargeWeightsThatMeetFew) {
  const auto is_product = [](at::IntArrayRef input, at::IntArrayRef weight, int64_t stride, int64_t padding,
                             at::ScalarType dtype = at::kFloat) {
    return is_faster_as_product(at::empty(input, dtype), at::empty(weight, dtype), stride, padding);
  };
  EXPECT_TRUE(is_product({1, 64, 64, 64}, {32, 64, 1, 1}, 1, 0));
  EXPECT_FALSE(is_product({1, 64, 64, 64}, {32, 64, 1, 1}, 2, 0));
  EXPECT_FALSE(is_product({1, 64, 64, 64}, {32, 64, 1, 1}, 1, 0, at::kHalf));
  EXPECT_TRUE(is_product({1, 1280, 8, 8}, {1280, 1280, 3, 3}, 1, 1));
  EXPECT_TRUE(is_product({4, 1280, 8, 8}, {1280, 1280, 3, 3}, 1, 1));
  EXPECT_FALSE(is_product({8, 1280, 8, 8}, {1280, 1280, 3, 3}, 1, 1));
  EXPECT_TRUE(is_product({1, 1280, 32, 32}, {1280, 1280, 3, 3}, 2, 1));  // 16 x 16 come out
  EXPECT_FALSE(is_product({1, 1280, 32, 32}, {1280, 1280, 3, 3}, 1, 1));
  EXPECT_FALSE(is_product({1, 320, 8, 8}, {320, 320, 3, 3}, 1, 1));
}

TEST(ProductConv2d, IsForBf16WhereThereAreUnitsForIt) {
#if defined(__x86_64__)
  const bool has_units = __builtin_cpu_supports("avx512bf16");
#else
  const bool has_units = false;
#endif
  const at::Tensor input = at::empty({1, 1280, 8, 8}, at::kBFloat16);
  const at::Tensor weight = at::empty({1280, 1280, 3, 3}, at::kBFloat16);
  EXPECT_EQ(is_faster_as_product(input, weight, 1, 1), has_units);
  EXPECT_FALSE(is_faster_as_product(at::empty({3, 1280, 8, 8}, at::kBFloat16), weight, 1, 1));
  EXPECT_EQ(is_faster_as_product(at::empty({1, 2560, 16, 16}, at::kBFloat16),
                                 at::empty({1280, 2560, 3, 3}, at::kBFloat16), 1, 1),
            has_units);
  // A policy, which has gradients, takes the path of its reference, which has none.
  EXPECT_EQ(is_faster_as_product(input, weight.detach().set_requires_grad(true), 1, 1), has_units);
}

// Output and the gradients of input, weight and bias in half precision, beside at::conv2d's and fp64's.
TEST(ProductConv2d, IsAsExactAsAConvolutionInHalfPrecision) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    for (const auto& [window, batch] : {std::pair<int64_t, int64_t>{3, 3}, {1, 3}, {3, 1}, {1, 1}}) {
      const int64_t padding = window / 2;
      const std::vector<at::Tensor> inputs = {random({batch, 70, 5, 6}, 1).to(dtype),
                                              random({40, 70, window, window}, 2).to(dtype), random({40}, 3).to(dtype)};
      const at::Tensor cotangent = random({batch, 40, 5, 6}, 4).to(dtype);
      const auto results = [&](at::ScalarType type, bool as_product) {
        std::vector<at::Tensor> leaves;
        for (const at::Tensor& input : inputs) leaves.push_back(input.to(type).detach().set_requires_grad(true));
        const at::Tensor output = as_product ? product_conv2d(leaves[0], leaves[1], leaves[2], 1, padding)
                                             : at::conv2d(leaves[0], leaves[1], leaves[2], {1, 1}, {padding, padding});
        auto found = torch::autograd::grad({output}, leaves, {cotangent.to(type)});
        found.insert(found.begin(), output.detach());
        return found;
      };
      const auto exact = results(at::kDouble, false), theirs = results(dtype, false), found = results(dtype, true);
      for (size_t i = 0; i < exact.size(); ++i) {
        EXPECT_LE(tests::relative_error(found[i], exact[i]), 1.2 * tests::relative_error(theirs[i], exact[i]))
            << c10::toString(dtype) << ", window " << window << ", batch " << batch << ", result " << i;
      }
    }
  }
}

TEST(ProductConv2d, IsWhatLayersTake) {
  Conv2d layer(Conv2dOptions{.in_channels = 6, .out_channels = 5, .kernel_size = 1, .padding = 0});
  at::NoGradGuard no_grad;
  layer->weight.copy_(random({5, 6, 1, 1}, 2));
  layer->bias.copy_(random({5}, 3));
  const at::Tensor input = random({2, 6, 5, 4}, 1);
  EXPECT_TRUE(at::equal(layer(input), product_conv2d(input, layer->weight, layer->bias, 1, 0)));
}

}  // namespace
}  // namespace prefusion::nn

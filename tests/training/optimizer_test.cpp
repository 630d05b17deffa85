#include "training/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"
#include "tests/support/tensor_near.h"

namespace prefusion::training {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, DrawKey{7, item, 0}, RandomPurpose::kOther);
}

std::vector<NamedTensor> parameters(at::ScalarType dtype) {
  return {{"a", random({6, 4}, 1).to(dtype).set_requires_grad(true)},
          {"b", random({5}, 2).to(dtype).set_requires_grad(true)}};
}

void take_steps(AdamW& optimizer, uint64_t first, uint64_t last) {
  for (uint64_t step = first; step < last; ++step) {
    for (const auto& [name, parameter] : optimizer.parameters()) {
      parameter.mutable_grad() = random(parameter.sizes(), 100 * step + name[0]).to(parameter.scalar_type());
    }
    optimizer.step(1e-2);
    optimizer.zero_grad();
  }
}

class AdamWState : public testing::TestWithParam<at::ScalarType> {};

TEST_P(AdamWState, GoesOnBitForBit) {
  AdamW whole(parameters(GetParam()), {});
  take_steps(whole, 0, 6);

  AdamW first(parameters(GetParam()), {});
  take_steps(first, 0, 3);
  TensorMap state;
  for (const auto& [name, tensor] : first.state()) state[name] = tensor.clone();
  AdamW second(parameters(GetParam()), {});
  second.load_state(state, "test");
  take_steps(second, 3, 6);

  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::equal(whole.parameters()[i].tensor, second.parameters()[i].tensor));
    EXPECT_TRUE(at::equal(whole.master_weights()[i].tensor, second.master_weights()[i].tensor));
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, AdamWState, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return at::toString(info.param); });

TEST(AdamW, KeepsUpdatesSmallerThanHalfPrecisionCanHold) {
  AdamW optimizer({{"w", at::ones({1}, at::kBFloat16).set_requires_grad(true)}}, {.weight_decay = 0});
  for (int step = 0; step < 100; ++step) {
    optimizer.parameters()[0].tensor.mutable_grad() = at::ones({1}, at::kBFloat16);
    optimizer.step(1e-4);  // bf16 numbers just below 1 are 2^-8 apart: a single update is lost in rounding
  }
  EXPECT_NEAR(optimizer.master_weights()[0].tensor.item<double>(), 0.99, 1e-5);
  EXPECT_NEAR(optimizer.parameters()[0].tensor.item<double>(), 0.99, 4e-3);
  EXPECT_LT(optimizer.parameters()[0].tensor.item<double>(), 1.0);
}

TEST(AdamW, RefusesTheStateOfAnotherModel) {
  AdamW optimizer(parameters(at::kFloat), {});
  AdamW other({{"a", at::zeros({6, 5}).set_requires_grad(true)}}, {});
  EXPECT_THROW(optimizer.load_state(other.state(), "checkpoint"), Error);
  EXPECT_THROW(AdamW({}, {}), Error);
}

TEST(AdamW, NormWithoutGradientsIsZero) {
  AdamW optimizer(parameters(at::kFloat), {});
  EXPECT_EQ(optimizer.grad_norm().item<double>(), 0.0);
  optimizer.step(1.0);
  EXPECT_TRUE(at::equal(optimizer.parameters()[0].tensor, random({6, 4}, 1)));
}

TEST(AdamW, StateBytesCountMomentsAndMasters) {
  EXPECT_EQ(AdamW(parameters(at::kFloat), {}).state_bytes(), 29u * 8);
  EXPECT_EQ(AdamW(parameters(at::kBFloat16), {}).state_bytes(), 29u * 12);
}

}  // namespace
}  // namespace prefusion::training

#include "training/ema.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/tensor_near.h"

namespace prefusion::training {
namespace {

TEST(Ema, FollowsItsFormulaWithWarmup) {
  const at::Tensor weight = at::zeros({2}, at::kBFloat16);
  Ema ema({{"w", weight}}, 0.3);
  double average = 0;
  for (int step = 0; step < 8; ++step) {
    weight.fill_(step + 1.0);
    ema.update({{"w", weight}});
    const double decay = std::min(0.3, (1.0 + step) / (10.0 + step));
    average = decay * average + (1 - decay) * (step + 1.0);
    EXPECT_NEAR(ema.averages()[0].tensor[1].item<double>(), average, 1e-5) << step;
  }
  EXPECT_EQ(ema.averages()[0].tensor.scalar_type(), at::kFloat);
}

TEST(Ema, StepsThatAreNotTakenDoNotCount) {
  const auto weights = [](double value) { return std::vector<NamedTensor>{{"w", at::full({3}, value)}}; };
  Ema with_gaps(weights(1.0), 0.9), without(weights(1.0), 0.9);
  for (const double value : {2.0, 5.0}) {
    with_gaps.update(weights(7.0), /*takes=*/at::zeros({}));
    with_gaps.update(weights(value), /*takes=*/at::ones({}));
    without.update(weights(value));
  }
  EXPECT_TRUE(at::equal(with_gaps.averages()[0].tensor, without.averages()[0].tensor));
}

TEST(Ema, StartsAtTheWeightsAndDoesNotShareThem) {
  const at::Tensor weight = at::ones({3});
  Ema ema({{"w", weight}}, 0.9);
  weight.fill_(5.0);
  EXPECT_TRUE(at::equal(ema.averages()[0].tensor, at::ones({3})));
}

TEST(Ema, StateGoesOnBitForBit) {
  const auto weights = [](double value) { return std::vector<NamedTensor>{{"w", at::full({3}, value)}}; };
  Ema whole(weights(0.1), 0.999), first(weights(0.1), 0.999), second(weights(7.0), 0.999);
  for (const double value : {0.3, 0.5}) {
    whole.update(weights(value));
    first.update(weights(value));
  }
  second.load_state(first.state(), "test");
  whole.update(weights(0.9));
  second.update(weights(0.9));
  EXPECT_TRUE(at::equal(whole.averages()[0].tensor, second.averages()[0].tensor));
  EXPECT_THROW(Ema({{"w", at::zeros({4})}}, 0.9).load_state(first.state(), "test"), Error);
}

TEST(SwappedWeights, PutsValuesInAndTakesThemOut) {
  at::Tensor parameter = at::rand({2, 2}).to(at::kBFloat16).set_requires_grad(true);
  const at::Tensor before = parameter.detach().clone();
  const void* storage = parameter.data_ptr();
  {
    const SwappedWeights swapped({{"p", parameter}}, {{"p", at::full({2, 2}, 3.0)}});
    EXPECT_TRUE(at::equal(parameter, at::full({2, 2}, 3.0, at::kBFloat16)));
    EXPECT_EQ(parameter.data_ptr(), storage);
  }
  EXPECT_TRUE(at::equal(parameter, before));
  EXPECT_TRUE(parameter.requires_grad());
}

TEST(SwappedWeights, RestoresWhenAnErrorPassesThrough) {
  const at::Tensor parameter = at::ones({2}).set_requires_grad(true);
  try {
    const SwappedWeights swapped({{"p", parameter}}, {{"p", at::zeros({2})}});
    fail_run("evaluation failed");
  } catch (const Error&) {
  }
  EXPECT_TRUE(at::equal(parameter, at::ones({2})));
}

}  // namespace
}  // namespace prefusion::training

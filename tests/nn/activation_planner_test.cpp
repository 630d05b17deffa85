#include "nn/activation_planner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "nn/activation_checkpoint.h"

namespace prefusion::nn {
namespace {

using Cost = ActivationPlanner::Cost;

TEST(ActivationPlan, KeepsEverythingThatFits) {
  const std::vector<Cost> costs = {{100, 10, true}, {50, 10, true}};
  EXPECT_EQ(ActivationPlanner::plan(costs, 150), (std::vector<bool>{false, false}));
}

TEST(ActivationPlan, RecomputesWhatFreesMostForItsOperations) {
  // Operations a byte: 1, 10, 2, 5.
  const std::vector<Cost> costs = {{100, 100, true}, {100, 1000, true}, {100, 200, true}, {100, 500, true}};
  // One is being recomputed at a time, which needs its room.
  EXPECT_EQ(ActivationPlanner::plan(costs, 399), (std::vector<bool>{true, false, true, false}));
  EXPECT_EQ(ActivationPlanner::plan(costs, 299), (std::vector<bool>{true, false, true, true}));
  EXPECT_EQ(ActivationPlanner::plan(costs, 199), (std::vector<bool>{true, true, true, true}));
}

TEST(ActivationPlan, SmallBlocksFillWhatALargeOneLeaves) {
  const std::vector<Cost> costs = {{1000, 100'000, true}, {10, 10, true}, {0, 5, true}};
  EXPECT_EQ(ActivationPlanner::plan(costs, 1010), (std::vector<bool>{false, false, false}));
  EXPECT_EQ(ActivationPlanner::plan(costs, 1009), (std::vector<bool>{true, true, false}));
  const std::vector<Cost> two = {{1000, 100'000, true}, {1000, 1000, true}, {10, 10, true}};
  EXPECT_EQ(ActivationPlanner::plan(two, 2000), (std::vector<bool>{false, true, true}));
  EXPECT_EQ(ActivationPlanner::plan(two, 2010), (std::vector<bool>{false, false, false}));
}

// The largest block needs its room whatever is said.
TEST(ActivationPlan, WhatIsFreeIsKeptWhereNothingFits) {
  const std::vector<Cost> costs = {{1000, 100'000, true}, {400, 10, true}, {0, 5, true}};
  EXPECT_EQ(ActivationPlanner::plan(costs, 900), (std::vector<bool>{true, true, false}));
}

// A layer with a weight of [width, width] that keeps its rounded input and a root.
struct LayerImpl : torch::nn::Module {
  explicit LayerImpl(int64_t width) {
    weight = register_parameter("weight", at::randn({width, width}) / std::sqrt(static_cast<double>(width)));
  }
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& x) {
    ++times;
    return {at::sigmoid(at::sigmoid(x[0].matmul(weight.t())))};
  }
  at::Tensor weight;
  int times = 0;
};

class PlannedLayers : public testing::Test {
 protected:
  at::Tensor run(const Recompute& recompute, int64_t rows) {
    at::manual_seed(rows);
    const at::Tensor input = at::randn({rows, 8}).set_requires_grad(true);
    std::vector<at::Tensor> states = {input};
    for (const auto& layer : layers) {
      layer->times = 0;
      const BlockFunction function = [layer](const std::vector<at::Tensor>& x) { return layer->forward(x); };
      states = run_block(*layer, function, states, recompute);
    }
    states[0].sum().backward();
    at::Tensor gradient = layers[0]->weight.grad().clone();
    for (const auto& layer : layers) layer->weight.mutable_grad().reset();
    return gradient;
  }
  std::vector<int> times() const {
    std::vector<int> times;
    for (const auto& layer : layers) times.push_back(layer->times);
    return times;
  }
  std::vector<std::shared_ptr<LayerImpl>> layers = {std::make_shared<LayerImpl>(8), std::make_shared<LayerImpl>(8),
                                                    std::make_shared<LayerImpl>(8)};
};

TEST_F(PlannedLayers, MeasureInTheFirstPassAndFitTheBudgetFromTheSecondOn) {
  // Of 40 rows of 8 numbers a layer keeps the result of the inner sigmoid, 1280 bytes; its input and output are kept in
  // any case, its weight is there.
  const Recompute planned(std::make_shared<ActivationPlanner>(size_t{2 * 1280}));
  const at::Tensor expected = run(false, 40);
  EXPECT_TRUE(at::equal(run(planned, 40), expected));
  EXPECT_EQ(times(), (std::vector<int>{2, 2, 2}));
  EXPECT_TRUE(at::equal(run(planned, 40), expected));
  EXPECT_EQ(times(), (std::vector<int>{1, 2, 2}));  // one is kept, one of the others is at work
  const Recompute all(std::make_shared<ActivationPlanner>(size_t{3 * 1280}));
  run(all, 40);
  EXPECT_TRUE(at::equal(run(all, 40), expected));
  EXPECT_EQ(times(), (std::vector<int>{1, 1, 1}));
  const Recompute none(std::make_shared<ActivationPlanner>(size_t{2 * 1280 - 1}));
  run(none, 40);
  EXPECT_TRUE(at::equal(run(none, 40), expected));
  EXPECT_EQ(times(), (std::vector<int>{2, 2, 2}));
}

// Products with a bias write into memory that they have given out themselves.
TEST(Measured, CountsWhatIsKeptOfEveryOperation) {
  const at::Tensor weight = at::randn({16, 8}).set_requires_grad(true), bias = at::randn({16}).set_requires_grad(true);
  const at::Tensor input = at::randn({3, 10, 8}).set_requires_grad(true);
  const auto cost = std::make_shared<Cost>();
  const auto layer = [&](const std::vector<at::Tensor>& x) {
    const at::Tensor hidden = at::linear(x[0], weight, bias);  // kept by the next product
    const at::Tensor last = at::linear(hidden, at::ones({4, 16}), at::ones({4}).set_requires_grad(true));
    return std::vector<at::Tensor>{at::sigmoid(at::linear(hidden.square(), weight.t(), at::ones({8}))) + last.sum()};
  };
  const auto outputs = measured(layer, cost)({input});
  EXPECT_TRUE(cost->is_known);
  // hidden (of the square), its square (of the weight's gradient) and the sigmoid; the second layer's constants.
  EXPECT_EQ(cost->kept_bytes, 4U * (3 * 10 * 16 + 3 * 10 * 16 + 3 * 10 * 8 + 4 * 16 + 4));
  EXPECT_EQ(cost->operations, 2 * (30 * 8 * 16 + 30 * 16 * 4 + 30 * 16 * 8));
}

TEST_F(PlannedLayers, EveryShapeHasAPlanOfItsOwn) {
  const Recompute planned(std::make_shared<ActivationPlanner>(size_t{3 * 1280}));
  for (int i = 0; i < 2; ++i) run(planned, 40);
  EXPECT_EQ(times(), (std::vector<int>{1, 1, 1}));
  for (int i = 0; i < 2; ++i) run(planned, 80);
  EXPECT_EQ(times(), (std::vector<int>{2, 2, 2}));
  run(planned, 40);
  EXPECT_EQ(times(), (std::vector<int>{1, 1, 1}));
}

TEST_F(PlannedLayers, ForwardPassesAloneDecideNothing) {
  const Recompute planned(std::make_shared<ActivationPlanner>(size_t{3 * 1280}));
  {
    const at::NoGradGuard no_grad;
    for (const auto& layer : layers) {
      run_block(
          *layer, [layer](const std::vector<at::Tensor>& x) { return layer->forward(x); }, {at::randn({40, 8})},
          planned);
    }
  }
  run(planned, 40);
  EXPECT_EQ(times(), (std::vector<int>{2, 2, 2}));
}

TEST(RecomputeTest, TakesGigabytesThatAreKept) {
  EXPECT_EQ(Recompute(false, 0).planner, nullptr);
  EXPECT_FALSE(Recompute(false, 0).all);
  EXPECT_TRUE(Recompute(true, 0).all);
  EXPECT_NE(Recompute(false, 0.5).planner, nullptr);
}

}  // namespace
}  // namespace prefusion::nn

#include "nn/activation_checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "nn/transformer_block.h"

namespace prefusion::nn {
namespace {

at::Tensor randn(at::IntArrayRef shape, uint64_t seed) {
  return philox_randn(shape, {.seed = seed}, RandomPurpose::kOther);
}

TransformerBlock make_block() {
  TransformerBlock block(TransformerBlockOptions{.dim = 16, .num_heads = 2, .head_dim = 8, .cross_attention_dim = 12});
  init_weights(*block, make_torch_generator(1));
  return block;
}

// A chain of two blocks, with a use of the first one's output beside it.
at::Tensor run_chain(TransformerBlock& block, const at::Tensor& input, const at::Tensor& context, bool recompute) {
  const auto run = [block](const std::vector<at::Tensor>& x) mutable { return block->forward(x[0], x[1]); };
  const at::Tensor first = run_block(*block, run, {input, context}, recompute);
  return run_block(*block, run, {first, context}, recompute) + first;
}

TEST(ActivationCheckpoint, GivesTheSameBitsAsWithout) {
  TransformerBlock block = make_block();
  std::vector<std::vector<at::Tensor>> found(2);
  for (const bool recompute : {false, true}) {
    block->zero_grad();
    const at::Tensor input = randn({2, 6, 16}, 2).set_requires_grad(true);
    const at::Tensor context = randn({2, 5, 12}, 3).set_requires_grad(true);
    const at::Tensor output = run_chain(block, input, context, recompute);
    output.pow(2).sum().backward();
    found[recompute] = {output.detach(), input.grad(), context.grad()};
    for (const at::Tensor& parameter : block->parameters()) found[recompute].push_back(parameter.grad().clone());
  }
  for (size_t i = 0; i < found[0].size(); ++i) EXPECT_TRUE(at::equal(found[0][i], found[1][i])) << i;
}

// Two streams that a block mixes, as joint attention does.
TEST(ActivationCheckpoint, GivesTheSameBitsForBlocksOfSeveralOutputs) {
  TransformerBlock block = make_block();
  const BlockFunction run = [block](const std::vector<at::Tensor>& x) mutable {
    const at::Tensor states = block->forward(x[0], x[1]);
    return std::vector<at::Tensor>{states, x[1] * states.mean()};
  };
  std::vector<std::vector<at::Tensor>> found(2);
  for (const bool recompute : {false, true}) {
    block->zero_grad();
    const at::Tensor input = randn({2, 6, 16}, 2).set_requires_grad(true);
    const at::Tensor context = randn({2, 5, 12}, 3).set_requires_grad(true);
    const auto first = run_block(*block, run, {input, context}, recompute);
    const auto second = run_block(*block, run, first, recompute);
    (second[0].pow(2).sum() + second[1].sum()).backward();
    found[recompute] = {second[0].detach(), second[1].detach(), input.grad(), context.grad()};
    for (const at::Tensor& parameter : block->parameters()) found[recompute].push_back(parameter.grad().clone());
  }
  for (size_t i = 0; i < found[0].size(); ++i) EXPECT_TRUE(at::equal(found[0][i], found[1][i])) << i;
}

TEST(ActivationCheckpoint, ReachesParametersWhenNoInputNeedsAGradient) {
  TransformerBlock block = make_block();
  run_chain(block, randn({1, 4, 16}, 2), randn({1, 3, 12}, 3), /*recompute=*/true).sum().backward();
  for (const auto& item : block->named_parameters()) EXPECT_TRUE(item.value().grad().defined()) << item.key();
}

TEST(ActivationCheckpoint, AddsToGradientsThatAreThere) {
  Linear linear(3, 2);
  init_weights(*linear, make_torch_generator(1));
  linear->weight.mutable_grad() = at::ones({2, 3});
  const auto run = [linear](const std::vector<at::Tensor>& x) mutable { return linear->forward(x[0]); };
  run_block(*linear, run, {at::ones({1, 3})}, /*recompute=*/true).sum().backward();
  EXPECT_TRUE(at::equal(linear->weight.grad(), at::full({2, 3}, 2.0)));
}

TEST(ActivationCheckpoint, WorksWithAutogradGrad) {
  Linear linear(3, 2);
  init_weights(*linear, make_torch_generator(1));
  const auto run = [linear](const std::vector<at::Tensor>& x) mutable { return linear->forward(x[0]); };
  const at::Tensor loss = run_block(*linear, run, {at::ones({1, 3})}, /*recompute=*/true).sum();
  const auto grads = torch::autograd::grad({loss}, {linear->weight});
  EXPECT_TRUE(at::equal(grads[0], at::ones({2, 3})));
  EXPECT_FALSE(linear->weight.grad().defined());
}

TEST(ActivationCheckpoint, ReachesLowRankBranchesOfFrozenLayers) {
  Linear linear(3, 2);
  init_weights(*linear, make_torch_generator(1));
  for (at::Tensor& parameter : linear->parameters()) parameter.set_requires_grad(false);
  linear->lora_branches().push_back(
      {.A = randn({1, 3}, 4).set_requires_grad(true), .B = randn({2, 1}, 5).set_requires_grad(true)});
  const auto run = [linear](const std::vector<at::Tensor>& x) mutable { return linear->forward(x[0]); };
  run_block(*linear, run, {at::ones({1, 3})}, /*recompute=*/true).sum().backward();
  EXPECT_TRUE(linear->lora_branches()[0].A.grad().defined());
  EXPECT_TRUE(linear->lora_branches()[0].B.grad().defined());

  linear->set_lora_enabled(false);
  EXPECT_TRUE(trainable_tensors(*linear).empty());
  EXPECT_FALSE(run_block(*linear, run, {at::ones({1, 3})}, /*recompute=*/true).requires_grad());
}

TEST(ActivationCheckpoint, RunsTheBlockTwiceAndRecordsItOnce) {
  std::vector<bool> recorded;
  const auto run = [&](const std::vector<at::Tensor>& x) {
    recorded.push_back(at::GradMode::is_enabled());
    return std::vector<at::Tensor>{x[0] * x[0], x[0] + 1};
  };
  const at::Tensor input = at::full({1}, 3.0).set_requires_grad(true);
  const auto outputs = activation_checkpoint(run, {input}, {});
  ASSERT_EQ(outputs.size(), 2u);
  outputs[0].backward();  // the second output is not used
  EXPECT_EQ(recorded, (std::vector<bool>{false, true}));
  EXPECT_EQ(input.grad().item<float>(), 6.0f);
}

TEST(ActivationCheckpoint, RunsOnceWithoutRecording) {
  int runs = 0;
  const auto run = [&](const std::vector<at::Tensor>& x) {
    ++runs;
    return std::vector<at::Tensor>{x[0] * 2};
  };
  const at::Tensor input = at::ones({1}).set_requires_grad(true);
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(activation_checkpoint(run, {input}, {})[0].requires_grad());
  EXPECT_EQ(runs, 1);
}

TEST(ActivationCheckpoint, PassesUndefinedInputsOn) {
  const auto run = [](const std::vector<at::Tensor>& x) {
    EXPECT_FALSE(x[0].defined());
    return std::vector<at::Tensor>{x[1] * 2};
  };
  const at::Tensor input = at::ones({1}).set_requires_grad(true);
  activation_checkpoint(run, {at::Tensor(), input}, {})[0].backward();
  EXPECT_EQ(input.grad().item<float>(), 2.0f);
}

TEST(ActivationCheckpoint, Nests) {
  const auto inner = [](const std::vector<at::Tensor>& x) { return std::vector<at::Tensor>{x[0] * x[0]}; };
  const auto outer = [&](const std::vector<at::Tensor>& x) {
    return std::vector<at::Tensor>{activation_checkpoint(inner, {x[0]}, {})[0] * x[0]};
  };
  const at::Tensor input = at::full({1}, 2.0).set_requires_grad(true);
  activation_checkpoint(outer, {input}, {})[0].backward();
  EXPECT_EQ(input.grad().item<float>(), 12.0f);
}

TEST(ActivationCheckpoint, RecomputesInTheAutocastOfTheForwardPass) {
  Linear linear(8, 8);
  init_weights(*linear, make_torch_generator(1));
  std::vector<at::ScalarType> dtypes;
  const auto run = [&](const std::vector<at::Tensor>& x) {
    const at::Tensor output = linear->forward(x[0]);
    dtypes.push_back(output.scalar_type());
    return output;
  };
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor output = run_block(*linear, run, {at::ones({1, 8})}, /*recompute=*/true);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  output.sum().backward();
  EXPECT_EQ(dtypes, (std::vector<at::ScalarType>{at::kBFloat16, at::kBFloat16}));
  EXPECT_TRUE(linear->weight.grad().defined());
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
}

TEST(ActivationCheckpoint, RefusesGradientsOfGradients) {
  const auto run = [](const std::vector<at::Tensor>& x) { return std::vector<at::Tensor>{x[0] * x[0]}; };
  const at::Tensor input = at::ones({1}).set_requires_grad(true);
  const at::Tensor output = activation_checkpoint(run, {input}, {})[0];
  EXPECT_THROW(torch::autograd::grad({output}, {input}, {}, /*retain_graph=*/true, /*create_graph=*/true), Error);
}

}  // namespace
}  // namespace prefusion::nn

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>

#include <stdexcept>

#include "core/error.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "nn/lora.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

// conv -> mean over the picture -> to_q -> to_out.0
class SmallNetwork : public torch::nn::Module {
 public:
  SmallNetwork() {
    conv = register_module("conv_in", Conv2d(Conv2dOptions{.in_channels = 3, .out_channels = 6}));
    to_q = register_module("to_q", Linear(6, 5));
    to_out = register_module("to_out", torch::nn::ModuleList());
    to_out->push_back(Linear(5, 4));
    at::NoGradGuard no_grad;
    auto generator = make_torch_generator(3);
    for (auto& parameter : parameters()) parameter.normal_(0.0, 0.5, generator);
  }
  at::Tensor forward(const at::Tensor& input) {
    return to_out[0]->as<LinearImpl>()->forward(to_q->forward(conv->forward(input).mean({2, 3})));
  }
  Conv2d conv{nullptr};
  Linear to_q{nullptr};
  torch::nn::ModuleList to_out;
};

at::Tensor picture() {
  return at::randn({2, 3, 5, 7}, make_torch_generator(4), at::kFloat);
}

void randomise(const LoraAdapter& adapter, uint64_t seed) {
  at::NoGradGuard no_grad;
  auto generator = make_torch_generator(seed);
  for (const auto& [name, tensor] : adapter.parameters()) at::Tensor(tensor).normal_(0.0, 0.5, generator);
}

LoraConfig config_for(std::vector<std::string> targets, int64_t rank = 2, double alpha = 3) {
  return {.rank = rank, .alpha = alpha, .target_modules = std::move(targets)};
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(LoraAdapter, LeavesTheOutputUnchangedAtTheStart) {
  SmallNetwork network;
  const at::Tensor before = network.forward(picture());
  LoraAdapter::create(network, config_for({"to_q", "to_out.0", "conv_in"}), make_torch_generator(1));
  EXPECT_TRUE(at::equal(network.forward(picture()), before));
}

TEST(LoraAdapter, NamesAndShapesFollowThePaths) {
  SmallNetwork network;
  const auto adapter =
      LoraAdapter::create(network, config_for({"to_q", "to_out.0", "conv_in"}), make_torch_generator(1));
  const auto parameters = adapter->parameters();
  ASSERT_EQ(parameters.size(), 6u);
  EXPECT_EQ(parameters[0].name, "conv_in.lora_A.weight");
  EXPECT_EQ(parameters[0].tensor.sizes(), at::IntArrayRef({2, 3, 3, 3}));
  EXPECT_EQ(parameters[1].tensor.sizes(), at::IntArrayRef({6, 2, 1, 1}));
  EXPECT_EQ(parameters[2].name, "to_q.lora_A.weight");
  EXPECT_EQ(parameters[4].name, "to_out.0.lora_A.weight");
  EXPECT_EQ(parameters[5].name, "to_out.0.lora_B.weight");
  EXPECT_EQ(adapter->num_parameters(), 2 * 27 + 6 * 2 + 2 * 6 + 5 * 2 + 2 * 5 + 4 * 2);
}

TEST(LoraAdapter, DrawsAWithStandardDeviationOneOverRank) {
  class Wide : public torch::nn::Module {
   public:
    Wide() { register_module("to_q", Linear(400, 400)); }
  } network;
  const auto adapter = LoraAdapter::create(network, config_for({"to_q"}, 50), make_torch_generator(1));
  const auto& entry = adapter->entries().front();
  EXPECT_NEAR(entry.A.std().item<double>(), 1.0 / 50, 0.001);
  EXPECT_NEAR(entry.A.mean().item<double>(), 0.0, 0.001);
  EXPECT_EQ(entry.B.abs().max().item<double>(), 0.0);
}

TEST(LoraAdapter, GradientsReachAAndBOnly) {
  SmallNetwork network;
  const auto adapter = LoraAdapter::create(network, config_for({"all-linear"}), make_torch_generator(1));
  randomise(*adapter, 5);
  network.forward(picture()).square().sum().backward();
  for (const auto& [name, tensor] : adapter->parameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_GT(tensor.grad().abs().max().item<double>(), 0.0) << name;
  }
  for (const auto& item : network.named_parameters()) EXPECT_FALSE(item.value().grad().defined()) << item.key();
}

TEST(LoraAdapter, AllLinearTakesEveryLinearAndNoConvolution) {
  SmallNetwork network;
  const auto adapter = LoraAdapter::create(network, config_for({"all-linear"}), make_torch_generator(1));
  ASSERT_EQ(adapter->entries().size(), 2u);
  EXPECT_EQ(adapter->config().target_modules, (std::vector<std::string>{"to_q", "to_out.0"}));
}

TEST(LoraAdapter, MatchesWholePartsOfAPathOnly) {
  SmallNetwork network;
  EXPECT_EQ(error_of([&] {
              LoraAdapter::create(network, config_for({"q", "out.0"}), make_torch_generator(1));
            }),
            "no layer of the network matches the target modules 'q, out.0'; it has: conv_in, to_out.0, to_q");
}

TEST(LoraAdapter, RefusesRanksThatCannotBe) {
  SmallNetwork network;
  EXPECT_NE(error_of([&] { LoraAdapter::create(network, config_for({"to_q"}, 0), make_torch_generator(1)); }), "");
  EXPECT_NE(error_of([&] { LoraAdapter::create(network, config_for({"to_q"}, 2, -1), make_torch_generator(1)); }), "");
  const std::string message =
      error_of([&] { LoraAdapter::create(network, config_for({"to_q"}, 6), make_torch_generator(1)); });
  EXPECT_NE(message.find("rank 6"), std::string::npos) << message;
  EXPECT_NE(message.find("to_q"), std::string::npos) << message;
}

TEST(LoraAdapter, SeveralAddUpAndComeOffOneByOne) {
  SmallNetwork network;
  const at::Tensor base = network.forward(picture());
  const auto first = LoraAdapter::create(network, config_for({"to_out.0"}), make_torch_generator(1));
  randomise(*first, 6);
  const at::Tensor with_first = network.forward(picture());
  const auto second = LoraAdapter::create(network, config_for({"to_out.0"}, 1, 2), make_torch_generator(2));
  randomise(*second, 7);
  const at::Tensor with_both = network.forward(picture());
  first->remove();
  const at::Tensor with_second = network.forward(picture());
  EXPECT_FALSE(at::allclose(with_first, base));
  EXPECT_TRUE(tests::near(with_both - base, (with_first - base) + (with_second - base), 1e-5));
  second->remove();
  EXPECT_TRUE(at::equal(network.forward(picture()), base));
}

TEST(LoraAdapter, ScaleMultipliesItsPart) {
  SmallNetwork network;
  const at::Tensor base = network.forward(picture());
  const auto adapter = LoraAdapter::create(network, config_for({"to_out.0"}), make_torch_generator(1));
  randomise(*adapter, 6);
  const at::Tensor whole = network.forward(picture()) - base;
  adapter->set_scale(-0.5);
  EXPECT_TRUE(tests::near(network.forward(picture()) - base, whole * -0.5, 1e-5));
}

TEST(LoraAdapter, MergedWeightsGiveTheSameOutput) {
  SmallNetwork network;
  const auto first = LoraAdapter::create(network, config_for({"to_q", "to_out.0", "conv_in"}), make_torch_generator(1));
  const auto second = LoraAdapter::create(network, config_for({"conv_in"}, 1, 4), make_torch_generator(2));
  randomise(*first, 6);
  randomise(*second, 7);
  second->set_scale(0.3);
  const at::Tensor before = network.forward(picture());
  merge_lora(network);
  EXPECT_TRUE(network.conv->lora_branches().empty());
  EXPECT_TRUE(tests::near(network.forward(picture()), before, 1e-5));
}

class AdapterOffTest : public testing::Test {
 protected:
  AdapterOffTest() {
    base = network.forward(picture());
    adapter = LoraAdapter::create(network, config_for({"to_q", "conv_in"}), make_torch_generator(1));
    randomise(*adapter, 8);
    adapted = network.forward(picture());
  }
  SmallNetwork network;
  std::shared_ptr<LoraAdapter> adapter;
  at::Tensor base, adapted;
};

TEST_F(AdapterOffTest, GivesTheBaseNetworkInScope) {
  ASSERT_FALSE(at::allclose(base, adapted));
  {
    const AdapterOff off(network);
    EXPECT_TRUE(at::equal(network.forward(picture()), base));
  }
  EXPECT_TRUE(at::equal(network.forward(picture()), adapted));
}

TEST_F(AdapterOffTest, RestoresAfterAnException) {
  for (const bool whole_network : {true, false}) {
    try {
      const AdapterOff off = whole_network ? AdapterOff(network) : AdapterOff(*adapter);
      throw std::runtime_error("the forward pass failed");
    } catch (const std::runtime_error&) {
    }
    EXPECT_TRUE(at::equal(network.forward(picture()), adapted));
  }
}

TEST_F(AdapterOffTest, NestsAndRestoresTheOuterState) {
  const AdapterOff outer(network);
  { const AdapterOff inner(network); }
  EXPECT_TRUE(at::equal(network.forward(picture()), base));
}

TEST_F(AdapterOffTest, SwitchesOffOneOfTwoAdapters) {
  const auto second = LoraAdapter::create(network, config_for({"to_q"}), make_torch_generator(2));
  randomise(*second, 9);
  const at::Tensor both = network.forward(picture());
  {
    const AdapterOff off(*second);
    EXPECT_TRUE(at::equal(network.forward(picture()), adapted));
  }
  EXPECT_TRUE(at::equal(network.forward(picture()), both));
}

}  // namespace
}  // namespace prefusion::nn

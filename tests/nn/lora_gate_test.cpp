#include "nn/lora_gate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "nn/activation_checkpoint.h"
#include "nn/layers.h"
#include "tests/core/expect_error.h"
#include "tests/nn/announcing_network.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

using tests::error_message;
using tests::mentions;

using Network = tests::AnnouncingNetwork;

using Targets = std::vector<std::string>;

LoraExpert attach(Network& network, uint64_t seed, Targets targets = {"conv", "to_q"}) {
  auto adapter = LoraAdapter::create(network, {.rank = 2, .alpha = 3, .target_modules = std::move(targets)},
                                     make_torch_generator(1));
  adapter->set_requires_grad(false);
  auto generator = make_torch_generator(seed);
  for (const auto& [name, tensor] : adapter->parameters()) at::Tensor(tensor).normal_(0.0, 0.5, generator);
  return {concat("expert ", seed), adapter};
}

std::shared_ptr<LoraGate> make_gate(Network& network, std::vector<LoraExpert> experts) {
  return LoraGate::create(network, std::move(experts), 5, make_torch_generator(8));
}

// A gate that prefers differently at every timestep and layer.
void train(const LoraGate& gate) {
  at::NoGradGuard no_grad;
  auto generator = make_torch_generator(11);
  for (const auto& [name, tensor] : gate.parameters()) at::Tensor(tensor).normal_(0.0, 1.0, generator);
}

at::Tensor timesteps(std::initializer_list<int64_t> values) {
  return at::tensor(values, at::kLong);
}

TEST(LoraGate, WeighsEquallyAtTheStart) {
  Network network, halves;
  const auto gate = make_gate(network, {attach(network, 3), attach(network, 4)});
  EXPECT_EQ(gate->layers(), (Targets{"conv", "to_q"}));
  EXPECT_TRUE(at::equal(gate->weights(timesteps({0, 17, 999})), at::full({3, 2, 2}, 0.5)));
  for (const uint64_t seed : {3, 4}) attach(halves, seed).adapter->set_scale(0.5);
  EXPECT_TRUE(tests::near(network.forward({5, 900}), halves.forward({5, 900}), 1e-5));
}

TEST(LoraGate, WeightsSumToOneAndDependOnTimestepAndLayer) {
  Network network;
  const auto gate = make_gate(network, {attach(network, 3), attach(network, 4), attach(network, 5)});
  train(*gate);
  const at::Tensor weights = gate->weights(timesteps({3, 800}));
  EXPECT_TRUE(tests::near(weights.sum(-1), at::ones({2, 2}), 1e-6));
  EXPECT_GT(weights.min().item<float>(), 0);
  EXPECT_FALSE(tests::near(weights[0], weights[1], 1e-2));
  EXPECT_FALSE(tests::near(weights.select(1, 0), weights.select(1, 1), 1e-2));
}

TEST(LoraGate, AddsTheExpertsOutputsByWeight) {
  Network network;
  const std::vector<LoraExpert> experts = {attach(network, 3), attach(network, 4)};
  const auto gate = make_gate(network, experts);
  train(*gate);
  const at::Tensor weights = gate->weights(timesteps({40, 700}));
  const auto delta = [&](size_t expert, const char* path, const at::Tensor& input, bool is_conv) {
    for (const LoraEntry& entry : experts[expert].adapter->entries()) {
      if (entry.path != path) continue;
      const at::Tensor low = is_conv ? at::conv2d(input, entry.A, {}, {1, 1}, {1, 1}) : at::linear(input, entry.A);
      return entry.scaling() * (is_conv ? at::conv2d(low, entry.B) : at::linear(low, entry.B));
    }
    throw std::logic_error("no such layer");
  };
  const auto fused = [&](const at::Tensor& plain, int64_t layer, const char* path, const at::Tensor& input,
                         bool is_conv) {
    at::Tensor sum = plain;
    for (size_t k = 0; k < 2; ++k) {
      const at::Tensor weight = weights.select(1, layer).select(1, static_cast<int64_t>(k)).view({-1, 1, 1, 1});
      sum = sum + weight * delta(k, path, input, is_conv);
    }
    return sum;
  };
  const at::Tensor found = network.forward({40, 700});
  const AdapterOff off(network);
  const at::Tensor hidden = fused(network.conv->forward(network.input), 0, "conv", network.input, true);
  const at::Tensor states = hidden.permute({0, 2, 3, 1});
  EXPECT_TRUE(tests::near(found, fused(network.to_q->forward(states), 1, "to_q", states, false), 1e-5));
}

TEST(LoraGate, RestrictedExpertsShareWhatIsLeft) {
  Network network;
  const std::vector<LoraExpert> experts = {attach(network, 3), attach(network, 4), attach(network, 5)};
  experts[0].adapter->restrict_to({0, 500}, network);
  experts[1].adapter->restrict_to({250, 1000}, network);
  experts[2].adapter->restrict_to({0, 900}, network);
  const at::Tensor weights = make_gate(network, experts)->weights(timesteps({10, 300, 600, 950, 999}));
  const at::Tensor expected = at::tensor({0.5, 0.0, 0.5,              //
                                          1.0 / 3, 1.0 / 3, 1.0 / 3,  //
                                          0.0, 0.5, 0.5,              //
                                          0.0, 1.0, 0.0, 0.0, 1.0, 0.0},
                                         at::kFloat)
                                  .view({5, 3});
  EXPECT_TRUE(tests::near(weights.select(1, 0), expected, 1e-6));
}

TEST(LoraGate, NothingIsAddedWhereNoExpertActs) {
  Network network, plain;
  const std::vector<LoraExpert> experts = {attach(network, 3), attach(network, 4)};
  for (const auto& expert : experts) expert.adapter->restrict_to({100, 200}, network);
  const auto gate = make_gate(network, experts);
  EXPECT_TRUE(at::equal(network.forward({99, 700}), plain.forward({99, 700})));
  EXPECT_TRUE(at::equal(gate->weights(timesteps({99})), at::zeros({1, 2, 2})));
}

TEST(LoraGate, ExpertsWithoutALayerGetNoWeightThere) {
  Network network;
  const auto gate = make_gate(network, {attach(network, 3, {"conv"}), attach(network, 4, {"conv", "to_q"})});
  const at::Tensor weights = gate->weights(timesteps({10}))[0];
  EXPECT_TRUE(tests::near(weights, at::tensor({0.5, 0.5, 0.0, 1.0}, at::kFloat).view({2, 2}), 1e-6));
}

TEST(LoraGate, GradientsReachTheGateAlone) {
  Network network;
  const std::vector<LoraExpert> experts = {attach(network, 3), attach(network, 4)};
  const auto gate = make_gate(network, experts);
  train(*gate);
  for (const auto& [name, tensor] : gate->parameters()) tensor.set_requires_grad(true);
  network.forward({40, 700}).square().sum().backward();
  for (const auto& [name, tensor] : gate->parameters()) EXPECT_GT(tensor.grad().abs().max().item<float>(), 0) << name;
  for (const auto& expert : experts) {
    for (const auto& [name, tensor] : expert.adapter->parameters()) EXPECT_FALSE(tensor.grad().defined()) << name;
  }
}

TEST(LoraGate, RecomputedBlocksGiveTheSameGradients) {
  Network network;
  const auto gate = make_gate(network, {attach(network, 3), attach(network, 4)});
  train(*gate);
  for (const auto& [name, tensor] : gate->parameters()) tensor.set_requires_grad(true);
  const auto gradients = [&](bool recompute) {
    network.announce({40, 700});
    const auto block = [&](const std::vector<at::Tensor>& x) { return network.conv->forward(x[0]); };
    run_block(*network.conv, block, {network.input}, recompute).square().sum().backward();
    std::vector<at::Tensor> found;
    for (const auto& [name, tensor] : gate->parameters()) {
      found.push_back(tensor.grad().clone());
      tensor.mutable_grad().reset();
    }
    return found;
  };
  const auto kept = gradients(false), recomputed = gradients(true);
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_GT(kept[i].abs().max().item<float>(), 0) << i;
    EXPECT_TRUE(tests::near(recomputed[i], kept[i], 1e-6)) << i;
  }
}

TEST(LoraGate, AdapterOffSwitchesAllExpertsOff) {
  Network network, plain;
  make_gate(network, {attach(network, 3), attach(network, 4)});
  const AdapterOff off(network);
  EXPECT_TRUE(at::equal(network.forward({40, 700}), plain.forward({40, 700})));
}

TEST(LoraGate, FewerThanTwoExpertsAreRefused) {
  Network network;
  const auto text = error_message(ErrorClass::kUsage, [&] { make_gate(network, {attach(network, 3)}); });
  EXPECT_TRUE(mentions(text, "two experts"));
}

class LoraGateFile : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<LoraExpert> experts = {attach(network_, 3, {"conv"}), attach(network_, 4)};
    experts[1].adapter->restrict_to({100, 800}, network_);
    gate_ = make_gate(network_, experts);
    train(*gate_);
    gate_->save(path_);
    tensors_ = read_safetensors(path_, &metadata_);
  }
  std::string load_error() {
    write_safetensors(path_, tensors_, metadata_);
    Network other, plain;
    const std::string text = error_message(ErrorClass::kInput, [&] { LoraGate::load(other, path_, 1.0); });
    EXPECT_TRUE(at::equal(other.forward({5, 600}), plain.forward({5, 600}))) << "branches stay behind";
    return text;
  }

  Network network_;
  std::shared_ptr<LoraGate> gate_;
  tests::TempDir folder_;
  std::filesystem::path path_ = folder_ / "gated_lora.safetensors";
  TensorMap tensors_;
  Metadata metadata_;
};

TEST_F(LoraGateFile, HoldsExpertsAndGate) {
  Network other;
  {
    const auto loaded = LoraGate::load(other, path_, 1.0);  // the network keeps it
    ASSERT_EQ(loaded->experts().size(), 2u);
    EXPECT_EQ(loaded->experts()[0].name, "expert 3");
    EXPECT_TRUE(at::equal(loaded->weights(timesteps({5, 600})), gate_->weights(timesteps({5, 600}))));
  }
  EXPECT_TRUE(at::equal(other.forward({5, 600}), network_.forward({5, 600})));
  EXPECT_TRUE(is_lora_gate(metadata_));
  EXPECT_EQ(expert_names(metadata_, "file"), (Targets{"expert 3", "expert 4 at 100:800"}));
}

TEST_F(LoraGateFile, ScaleIsThatOfAllExperts) {
  Network other, plain;
  LoraGate::load(other, path_, 0.0);
  EXPECT_TRUE(tests::near(other.forward({5, 600}), plain.forward({5, 600}), 1e-6));
}

TEST_F(LoraGateFile, OfAnotherKindIsRefused) {
  metadata_.erase("prefusion_adapter");
  EXPECT_TRUE(mentions(load_error(), "is no gated LoRA"));
}

TEST_F(LoraGateFile, DamagedHeadersAreRefused) {
  for (const char* experts : {"", "[]", "{}", R"([{"name": "a"}, {}])", R"([{"name": "a"}, {"name": 3}])",
                              R"([{"name": "a"}, {"name": "b", "timestep_range": "5:1"}])"}) {
    metadata_["prefusion_experts"] = experts;
    EXPECT_TRUE(mentions(load_error(), "prefusion_experts")) << experts;
  }
  metadata_["prefusion_experts"] = R"([{"name": "a"}, {"name": "b"}, {"name": "c"}])";
  EXPECT_TRUE(mentions(load_error(), "expert 2"));
}

TEST_F(LoraGateFile, DamagedTensorsAreNamed) {
  const TensorMap good = tensors_;
  const auto expect_named = [&](const std::string& name, const at::Tensor& bad, const char* part) {
    tensors_ = good;
    if (bad.defined()) tensors_[name] = bad.contiguous();
    if (!bad.defined()) tensors_.erase(name);
    EXPECT_TRUE(mentions(load_error(), part)) << name;
  };
  const at::Tensor a = good.at("experts.1.to_q.lora_A.weight");
  expect_named("experts.1.to_q.lora_A.weight", a.slice(1, 0, 2), "'to_q'");
  expect_named("experts.1.to_q.lora_A.weight", a / 0.0, "'to_q.lora_A.weight'");
  expect_named("experts.1.to_q.lora_A.weight", a.to(at::kLong), "'to_q.lora_A.weight'");
  expect_named("experts.1.to_q.lora_B.weight", {}, "'to_q.lora_B.weight'");
  expect_named("experts.0.conv.alpha", {}, "'conv.alpha'");
  expect_named("experts.0.nowhere.lora_A.weight", a, "'nowhere.lora_A.weight'");
  expect_named("gate.hidden.bias", {}, "'gate.hidden.bias'");
  expect_named("gate.heads.weight", {}, "gate.heads.weight");
  expect_named("gate.heads.bias", good.at("gate.heads.bias").slice(0, 0, 1), "gate.heads.bias");
  expect_named("gate.heads.bias", good.at("gate.heads.bias") / 0.0, "gate.heads.bias");
  expect_named("gate.more", a, "gate.more");
}

}  // namespace
}  // namespace prefusion::nn

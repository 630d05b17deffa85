#include "nn/frozen_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "nn/layers.h"
#include "nn/lora.h"
#include "nn/module_list.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

using tests::near;

bool is_byte(const at::Tensor& weight) {
  return weight.element_size() == 1;
}

class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl() {
    conv = register_module("conv", Conv2d(Conv2dOptions{.in_channels = 6, .out_channels = 8, .stride = 2}));
    norm = register_module("norm", LayerNorm(8));
    proj = register_module("proj", Linear(8, 5, /*has_bias=*/false));
  }
  at::Tensor forward(const at::Tensor& x) { return proj(norm(conv(x).permute({0, 2, 3, 1}))); }

  Conv2d conv{nullptr};
  LayerNorm norm{nullptr};
  Linear proj{nullptr};
};

class NetworkImpl : public torch::nn::Module {
 public:
  NetworkImpl() {
    conv_in = register_module("conv_in", Conv2d(Conv2dOptions{.in_channels = 3, .out_channels = 6}));
    down_blocks = register_module("down_blocks", std::make_shared<ModuleList<std::shared_ptr<BlockImpl>>>());
    down_blocks->push_back(std::make_shared<BlockImpl>());
    proj_out = register_module("proj_out", Linear(5, 4));
  }
  at::Tensor forward(const at::Tensor& x) { return proj_out((*down_blocks)[0]->forward(conv_in(x))); }
  BlockImpl& block() { return *(*down_blocks)[0]; }

  Conv2d conv_in{nullptr};
  std::shared_ptr<ModuleList<std::shared_ptr<BlockImpl>>> down_blocks;
  Linear proj_out{nullptr};
};
TORCH_MODULE(Network);

Network make_network() {
  Network network;
  init_weights(*network, at::detail::createCPUGenerator(3));
  return network;
}

// A forward and a backward pass with the same fresh adapter on both: equal outputs to the bit on the CPU, and
// gradients.
void expect_same_step(Network first, Network second, at::Device device = at::kCPU) {
  const LoraConfig config{.rank = 2, .alpha = 3, .target_modules = {"conv", "proj"}, .timestep_range = std::nullopt};
  std::vector<std::vector<at::Tensor>> gradients;
  std::vector<at::Tensor> outputs;
  for (Network network : {first, second}) {
    at::manual_seed(5);
    const auto adapter = LoraAdapter::create(*network, config, at::detail::createCPUGenerator(7));
    for (const auto& entry : adapter->entries()) entry.B.detach().copy_(at::randn(entry.B.sizes()));
    const at::Tensor input = at::randn({2, 3, 9, 8}).to(device).requires_grad_(true);
    const at::Tensor output = network->forward(input);
    output.square().sum().backward();
    outputs.push_back(output.detach());
    gradients.push_back({input.grad()});
    for (const auto& [name, tensor] : adapter->parameters()) gradients.back().push_back(tensor.grad());
    adapter->remove();
  }
  if (device.is_cpu()) EXPECT_TRUE(at::equal(outputs[0], outputs[1]));
  EXPECT_TRUE(near(outputs[0], outputs[1], 1e-6));
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_TRUE(near(gradients[0][i], gradients[1][i], 1e-6)) << i;
}

class FrozenWeights : public testing::TestWithParam<FrozenDtype> {};

TEST_P(FrozenWeights, AreWithinHalfAStep) {
  at::manual_seed(1);
  at::Tensor weight = at::randn({6, 3, 3, 3}) * at::logspace(-3, 2, 6).view({6, 1, 1, 1});
  weight[2].zero_();
  const QuantisedWeight bytes = quantise_weight(weight, GetParam());
  EXPECT_EQ(bytes.weight.element_size(), 1);
  const double whole_range = GetParam() == FrozenDtype::kInt8 ? 127 : 448;
  EXPECT_EQ(bytes.weight.to(at::kFloat).abs().max().item<double>(), whole_range);
  const at::Tensor found = dequantise_weight(bytes.weight, bytes.scale, at::kFloat);
  const at::Tensor largest = weight.abs().flatten(1).amax(1).view({6, 1, 1, 1});
  // int8: half of the largest over 127. fp8: half of the last of 4 bits, or of the smallest step, 2^-9 of 448.
  const at::Tensor bound = GetParam() == FrozenDtype::kInt8 ? (largest / 127 / 2).expand_as(weight)
                                                            : at::maximum(weight.abs() / 16, largest / 448 / 1024);
  EXPECT_TRUE(((found - weight).abs() <= bound * 1.0001).all().item<bool>());
  EXPECT_TRUE(near(found.abs().flatten(1).amax(1), weight.abs().flatten(1).amax(1), 1e-6));
  EXPECT_FALSE(at::equal(found, weight));
}

TEST_P(FrozenWeights, OfBlocksAreBytesTheRestStays) {
  Network network = make_network();
  const at::Tensor conv_in = network->conv_in->weight.clone(), norm = network->block().norm->weight.clone();
  EXPECT_EQ(quantise_frozen_weights(*network, GetParam()), 2);
  EXPECT_TRUE(is_byte(network->block().conv->weight) && is_byte(network->block().proj->weight));
  EXPECT_TRUE(at::equal(network->conv_in->weight, conv_in) && at::equal(network->block().norm->weight, norm));
  EXPECT_EQ(network->block().conv->bias.scalar_type(), at::kFloat);
  EXPECT_FALSE(is_byte(network->proj_out->weight));
  for (const auto& parameter : network->parameters()) EXPECT_FALSE(parameter.requires_grad());
}

// The network in bytes is the network whose weights were rounded, to the last bit, in both passes.
TEST_P(FrozenWeights, ComputeWhatRoundedWeightsDo) {
  Network bytes = make_network(), rounded = make_network();
  quantise_frozen_weights(*bytes, GetParam());
  for (at::Tensor* weight : {&rounded->block().conv->weight, &rounded->block().proj->weight}) {
    const QuantisedWeight q = quantise_weight(*weight, GetParam());
    weight->set_data(dequantise_weight(q.weight, q.scale, at::kFloat));
  }
  for (auto& parameter : rounded->parameters()) parameter.set_requires_grad(false);
  expect_same_step(bytes, rounded);
}

TEST_P(FrozenWeights, StayCloseToFp32) {
  Network bytes = make_network(), plain = make_network();
  quantise_frozen_weights(*bytes, GetParam());
  at::manual_seed(2);
  const at::Tensor input = at::randn({4, 3, 16, 16});
  const at::Tensor expected = plain->forward(input);
  const double error = ((bytes->forward(input) - expected).norm() / expected.norm()).item<double>();
  EXPECT_LT(error, GetParam() == FrozenDtype::kInt8 ? 0.01 : 0.05);
  EXPECT_GT(error, 0);
}

TEST_P(FrozenWeights, KeepTheDtypeOfHalfPrecisionActivations) {
  Network network = make_network();
  quantise_frozen_weights(*network, GetParam());
  for (auto& parameter : network->parameters()) {
    if (!is_byte(parameter)) parameter.set_data(parameter.to(at::kBFloat16));
  }
  EXPECT_EQ(network->forward(at::randn({1, 3, 8, 8}).to(at::kBFloat16)).scalar_type(), at::kBFloat16);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, FrozenWeights, testing::Values(FrozenDtype::kInt8, FrozenDtype::kFp8),
                         [](const auto& info) { return info.param == FrozenDtype::kInt8 ? "int8" : "fp8"; });

// A network in half precision whose blocks stay so while it computes in fp32.
TEST(StreamedWeights, ComputeWhatConvertedOnesDo) {
  Network streamed = make_network(), converted = make_network();
  for (Network network : {streamed, converted}) {
    for (auto& parameter : network->parameters()) parameter.set_data(parameter.to(at::kHalf));
  }
  EXPECT_EQ(stream_frozen_weights(
                *streamed, [](const std::string&) { return at::kFloat; }, at::kCPU),
            2);
  converted->to(at::kFloat);
  for (auto& parameter : converted->parameters()) parameter.set_requires_grad(false);
  EXPECT_EQ(streamed->block().conv->weight.scalar_type(), at::kHalf);
  EXPECT_EQ(streamed->block().proj->weight.scalar_type(), at::kHalf);
  EXPECT_EQ(streamed->block().conv->compute_dtype(), at::kFloat);
  EXPECT_EQ(streamed->block().conv->bias.scalar_type(), at::kFloat);
  EXPECT_EQ(streamed->conv_in->weight.scalar_type(), at::kFloat);
  expect_same_step(streamed, converted);
}

TEST(StreamedWeights, AreLeftAloneWhereTheyAreWhatIsNeeded) {
  Network network = make_network();
  const void* data = network->block().conv->weight.data_ptr();
  EXPECT_EQ(stream_frozen_weights(
                *network, [](const std::string&) { return at::kFloat; }, at::kCPU),
            2);
  EXPECT_EQ(network->block().conv->weight.data_ptr(), data);
  EXPECT_EQ(network->block().conv->resting_weight(), nullptr);
  for (const auto& parameter : network->parameters()) EXPECT_FALSE(parameter.requires_grad());
}

TEST(StreamedWeights, MayBeBytes) {
  Network streamed = make_network(), bytes = make_network();
  for (Network network : {streamed, bytes}) quantise_frozen_weights(*network, FrozenDtype::kInt8);
  stream_frozen_weights(
      *streamed, [](const std::string&) { return at::kFloat; }, at::kCPU);
  EXPECT_TRUE(is_byte(streamed->block().conv->weight));
  expect_same_step(streamed, bytes);
}

TEST(StreamedWeights, ComeToTheGpuAndAreNotKeptThere) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  Network streamed = make_network(), resident = make_network();
  resident->to(at::kCUDA);
  for (auto& parameter : resident->parameters()) parameter.set_requires_grad(false);
  stream_frozen_weights(
      *streamed, [](const std::string&) { return at::kFloat; }, at::kCUDA);
  EXPECT_TRUE(streamed->block().conv->weight.is_cpu() && streamed->block().conv->weight.is_pinned());
  EXPECT_TRUE(streamed->conv_in->weight.is_cuda());
  EXPECT_TRUE(streamed->block().conv->compute_device().is_cuda());
  // From the second step on copies are under way before they are asked for.
  for (int step = 0; step < 4; ++step) expect_same_step(streamed, resident, at::kCUDA);
}

TEST(FrozenDtype, IsOneOfTwo) {
  EXPECT_EQ(parse_frozen_dtype("fp8", "--base-dtype"), FrozenDtype::kFp8);
  EXPECT_THROW(parse_frozen_dtype("int4", "--base-dtype"), Error);
}

}  // namespace
}  // namespace prefusion::nn

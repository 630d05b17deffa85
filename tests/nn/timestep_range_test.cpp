#include "nn/timestep_range.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"
#include "nn/lora.h"
#include "nn/lora_metadata.h"
#include "tests/nn/announcing_network.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

TEST(TimestepRange, ReadsLowAndHigh) {
  const auto range = parse_timestep_range("200:1000");
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->low, 200);
  EXPECT_EQ(range->high, 1000);
  EXPECT_EQ(range->text(), "200:1000");
  for (const char* text : {"", ":", "5", "5:", ":5", "5:5", "6:5", "-1:5", "1:5x", "1.5:3", "1:2:3"}) {
    EXPECT_FALSE(parse_timestep_range(text).has_value()) << text;
  }
}

TEST(TimestepRange, ContainsLowAndNotHigh) {
  const TimestepRange range{200, 500};
  EXPECT_TRUE(at::equal(range.contains(at::tensor({199, 200, 499, 500}, at::kLong)),
                        at::tensor({0.0, 1.0, 1.0, 0.0}, at::kFloat)));
  EXPECT_TRUE(at::equal(range.contains(at::tensor({199.9, 200.0, 499.9, 500.0}, at::kFloat)),
                        at::tensor({0.0, 1.0, 1.0, 0.0}, at::kFloat)));
}

using Network = tests::AnnouncingNetwork;

std::shared_ptr<LoraAdapter> attach(Network& network, uint64_t seed) {
  auto adapter = LoraAdapter::create(network, {.rank = 2, .target_modules = {"conv", "to_q"}}, make_torch_generator(1));
  at::NoGradGuard no_grad;
  auto generator = make_torch_generator(seed);
  for (const auto& [name, tensor] : adapter->parameters()) at::Tensor(tensor).normal_(0.0, 0.5, generator);
  return adapter;
}

TEST(RestrictedLora, ActsOnTheItemsInsideAlone) {
  Network network;
  const at::Tensor plain = network.forward({0, 0});
  const auto adapter = attach(network, 3);
  const at::Tensor adapted = network.forward({0, 0});
  adapter->restrict_to({100, 200}, network);
  EXPECT_TRUE(at::equal(network.forward({99, 200}), plain));
  EXPECT_TRUE(tests::near(network.forward({100, 199}), adapted, 1e-6));
  const at::Tensor mixed = network.forward({150, 800});
  EXPECT_TRUE(tests::near(mixed[0], adapted[0], 1e-6));
  EXPECT_TRUE(at::equal(mixed[1], plain[1]));
}

TEST(RestrictedLora, OnesOfTwoPartsDoNotMeet) {
  Network low_only, high_only, both;
  attach(low_only, 3)->restrict_to({0, 500}, low_only);
  attach(high_only, 4)->restrict_to({500, 1000}, high_only);
  attach(both, 3)->restrict_to({0, 500}, both);
  attach(both, 4)->restrict_to({500, 1000}, both);
  const at::Tensor found = both.forward({10, 900});
  EXPECT_TRUE(tests::near(found[0], low_only.forward({10, 10})[0], 1e-6));
  EXPECT_TRUE(tests::near(found[1], high_only.forward({900, 900})[1], 1e-6));
}

TEST(RestrictedLora, GradientsComeFromTheItemsInside) {
  Network network;
  const auto adapter = attach(network, 3);
  adapter->restrict_to({100, 200}, network);
  adapter->set_requires_grad(true);
  network.forward(at::tensor({5, 900}, at::kLong)).square().sum().backward();
  for (const auto& [name, tensor] : adapter->parameters())
    EXPECT_EQ(tensor.grad().abs().max().item<float>(), 0) << name;
  network.forward(at::tensor({5, 150}, at::kLong)).square().sum().backward();
  for (const auto& [name, tensor] : adapter->parameters())
    EXPECT_GT(tensor.grad().abs().max().item<float>(), 0) << name;
}

TEST(RestrictedLora, IsReadBackFromItsFile) {
  tests::TempDir folder;
  const auto path = folder / "lora.safetensors";
  for (const LoraFormat format : {LoraFormat::kDiffusers, LoraFormat::kKohya}) {
    Network network, other;
    const auto adapter = attach(network, 3);
    adapter->restrict_to({100, 200}, network);
    save_lora(path, adapter.get(), nullptr, format);
    const auto report = load_lora(other, nullptr, path, 1.0);
    ASSERT_TRUE(report.unet->config().timestep_range.has_value());
    EXPECT_EQ(report.unet->config().timestep_range->text(), "100:200");
    EXPECT_TRUE(tests::near(other.forward({150, 800}), network.forward({150, 800}), 1e-6));
  }
}

TEST(RestrictedLora, DamagedRangeIsRefused) {
  tests::TempDir folder;
  Network network, other;
  attach(network, 3)->restrict_to({100, 200}, network);
  const auto path = folder / "lora.safetensors";
  const auto adapter = attach(other, 3);
  save_lora(path, adapter.get(), nullptr, LoraFormat::kDiffusers);
  Metadata metadata;
  const TensorMap tensors = read_safetensors(path, &metadata);
  EXPECT_FALSE(metadata.contains(kTimestepRangeKey));
  for (const char* range : {"", "200:100", "all"}) {
    metadata[kTimestepRangeKey] = range;
    write_safetensors(path, tensors, metadata);
    Network third;
    EXPECT_THROW(load_lora(third, nullptr, path, 1.0), Error) << range;
  }
}

TEST(RestrictedLora, IsNotMerged) {
  Network network;
  attach(network, 3)->restrict_to({100, 200}, network);
  EXPECT_THROW(merge_lora(network), Error);
}

TEST(RestrictedLora, WithoutTimestepsIsAnError) {
  Network network;
  attach(network, 3)->restrict_to({100, 200}, network);
  EXPECT_THROW(network.conv->forward(network.input), Error);
}

}  // namespace
}  // namespace prefusion::nn

#include "core/weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

TensorMap numbered(float value) {
  return {{"x", at::full({2}, value)}};
}

float first_value(const TensorMap& weights) {
  return weights.at("x")[0].item<float>();
}

TEST(ReadWeights, PrefersThePlainNameAndFindsVariants) {
  const TempDir folder;
  write_safetensors(folder / "model.non_ema.safetensors", numbered(9));
  write_safetensors(folder / "model.fp16.safetensors", numbered(1));
  EXPECT_EQ(first_value(read_weights(folder.path(), "model")), 1);
  write_safetensors(folder / "model.safetensors", numbered(2));
  EXPECT_EQ(first_value(read_weights(folder.path(), "model")), 2);
}

TEST(ReadWeights, JoinsShardsOfEveryIndexName) {
  for (const char* index : {"model.safetensors.index.json", "model.safetensors.index.fp16.json"}) {
    const TempDir folder;
    write_safetensors(folder / "s-1.safetensors", {{"a", at::ones({2})}});
    write_safetensors(folder / "s-2.safetensors", {{"b", at::ones({3})}});
    write_file(folder / index, R"({"metadata": {}, "weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}})");
    const TensorMap weights = read_weights(folder.path(), "model");
    ASSERT_EQ(weights.size(), 2u);
    EXPECT_EQ(weights.at("b").numel(), 3);
  }
}

TEST(ReadWeights, RefusesBrokenShardIndexes) {
  const TempDir folder;
  write_safetensors(folder / "s-1.safetensors", {{"a", at::ones({2})}});
  const auto refusal = [&](const char* index) {
    write_file(folder / "model.safetensors.index.json", index);
    return error_message(ErrorClass::kInput, [&] { read_weights(folder.path(), "model"); });
  };
  EXPECT_TRUE(mentions(refusal(R"({"weight_map": {"z": "s-1.safetensors"}})"), "'z'"));
  EXPECT_TRUE(mentions(refusal(R"({"weight_map": {"a": "s-9.safetensors"}})"), "s-9.safetensors"));
  EXPECT_TRUE(mentions(refusal(R"({"weight_map": {"a": "../s-1.safetensors"}})"), "plain file name"));
  EXPECT_TRUE(mentions(refusal(R"({"weight_map": {"a": "/etc/passwd"}})"), "plain file name"));
  refusal(R"({"weight_map": {"a": ".."}})");
  refusal(R"({"weight_map": {"a": 1}})");
  refusal(R"({"weight_map": []})");
  refusal("{}");
  refusal("[");
}

TEST(ReadWeights, SaysWhatItLookedForAndRefusesPickles) {
  const TempDir folder;
  const auto refusal = [&] { return error_message(ErrorClass::kInput, [&] { read_weights(folder.path(), "model"); }); };
  EXPECT_TRUE(mentions(refusal(), "model.safetensors.index.json"));
  write_file(folder / "model.bin", "x");
  EXPECT_TRUE(mentions(refusal(), "pickled"));
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kInput, [&] { read_weights(folder / "none", "model"); }), "no such folder"));
}

std::vector<NamedTensor> module_weights() {
  return {{"conv.weight", at::zeros({2, 3})}, {"conv.bias", at::zeros({2})}, {"norm.weight", at::zeros({4})}};
}

TEST(LoadWeightsStrict, ListsEverythingThatDoesNotFitAtOnce) {
  const TensorMap source = {
      {"conv.weight", at::ones({3, 2})}, {"extra.one", at::ones({1})}, {"extra.two", at::ones({1})}};
  const std::string message = error_message(
      ErrorClass::kInput, [&] { load_weights_strict(module_weights(), source, at::kFloat, at::kCPU, "unet folder"); });
  for (const char* part : {"unet folder", "2 missing: conv.bias, norm.weight", "2 unexpected: extra.one, extra.two",
                           "1 with another shape: conv.weight (expected [2, 3], found [3, 2])"}) {
    EXPECT_TRUE(mentions(message, part));
  }
}

TEST(LoadWeightsStrict, LeavesTheModuleAloneWhenItRefuses) {
  const std::vector<NamedTensor> weights = module_weights();
  EXPECT_THROW(load_weights_strict(weights, {{"conv.weight", at::ones({2, 3})}}, at::kFloat, at::kCPU, "x"), Error);
  EXPECT_EQ(weights[0].tensor.sum().item<float>(), 0);
}

TEST(LoadWeightsStrict, ConvertsFloatsAndKeepsIntegers) {
  const std::vector<NamedTensor> weights = {{"w", at::zeros({2}).requires_grad_()}, {"ids", at::zeros({3}, at::kLong)}};
  const TensorMap source = {{"w", at::tensor({1.5, -2.0}, at::kFloat).to(at::kHalf)},
                            {"ids", at::tensor({1, 2, 3}, at::kInt)}};
  load_weights_strict(weights, source, at::kBFloat16, at::kCPU, "x");
  EXPECT_EQ(weights[0].tensor.scalar_type(), at::kBFloat16);
  EXPECT_EQ(weights[0].tensor[1].item<float>(), -2.0f);
  EXPECT_TRUE(weights[0].tensor.requires_grad());
  EXPECT_EQ(weights[1].tensor.scalar_type(), at::kLong);
  EXPECT_EQ(weights[1].tensor[2].item<int64_t>(), 3);
}

TEST(LoadWeightsStrict, CountsTheRestOfALongList) {
  TensorMap source;
  for (int i = 0; i < 50; ++i) source["k" + std::to_string(100 + i)] = at::ones({1});
  const std::string message =
      error_message(ErrorClass::kInput, [&] { load_weights_strict({}, source, at::kFloat, at::kCPU, "x"); });
  EXPECT_TRUE(mentions(message, "50 unexpected"));
  EXPECT_TRUE(mentions(message, "and 30 more"));
}

}  // namespace
}  // namespace prefusion

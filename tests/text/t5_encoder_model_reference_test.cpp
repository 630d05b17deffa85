// The encoder against transformers' T5EncoderModel, live, in small configurations and three precisions.
#include "text/t5_encoder_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "core/safetensors.h"
#include "tests/support/tensor_near.h"
#include "tests/text/t5_reference.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using tests::near;
using tests::relative_error;

fs::path models() {
  return t5_reference() / "models";
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(models())) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  return names;
}

TensorMap expected_of(const std::string& name) {
  return read_safetensors(models() / (name + ".safetensors"));
}

at::Tensor states(T5EncoderModel& model, const TensorMap& inputs, bool is_masked) {
  at::NoGradGuard no_grad;
  return model.forward(inputs.at("input_ids"), is_masked ? inputs.at("mask") : at::Tensor());
}

TEST(T5EncoderModelReference, StatesEqualTransformersWithAndWithoutMask) {
  ASSERT_GE(model_names().size(), 12u);
  for (const std::string& name : model_names()) {
    SCOPED_TRACE(name);
    const TensorMap expected = expected_of(name);
    const auto model = load_t5_encoder_model(models() / name, at::kFloat, at::kCPU);
    EXPECT_TRUE(near(states(*model, expected, false), expected.at("plain"), 1e-5));
    EXPECT_TRUE(near(states(*model, expected, true), expected.at("masked"), 1e-5));
  }
}

// Half precision rounds in another order than transformers; it may not be further from fp32 than twice what that is.
TEST(T5EncoderModelReference, HalfPrecisionIsAsCloseToFp32AsTransformers) {
  for (const std::string& name : model_names()) {
    const TensorMap expected = expected_of(name);
    for (const auto& [prefix, dtype, floor] : {std::tuple{"bf16.", at::kBFloat16, 8e-3}, {"fp16.", at::kHalf, 1e-3}}) {
      SCOPED_TRACE(name + " " + prefix);
      const auto model = load_t5_encoder_model(models() / name, dtype, at::kCPU);
      for (const bool is_masked : {false, true}) {
        const std::string key = is_masked ? "masked" : "plain";
        const at::Tensor found = states(*model, expected, is_masked);
        EXPECT_EQ(found.scalar_type(), dtype);
        const double theirs = relative_error(expected.at(prefix + key), expected.at(key));
        EXPECT_LE(relative_error(found, expected.at(key)), 2 * theirs + floor) << key << ", theirs " << theirs;
      }
    }
  }
}

TEST(T5EncoderModelReference, KeepsLastMatricesOfFeedForwardInFp32WhereTheRestIsFp16) {
  const auto half = load_t5_encoder_model(models() / "gated_gelu", at::kHalf, at::kCPU);
  const auto bfloat = load_t5_encoder_model(models() / "gated_gelu", at::kBFloat16, at::kCPU);
  for (const auto& item : half->named_parameters()) {
    const bool is_output = item.key().ends_with(".wo.weight");
    EXPECT_EQ(item.value().scalar_type(), is_output ? at::kFloat : at::kHalf) << item.key();
  }
  for (const at::Tensor& weight : bfloat->parameters()) EXPECT_EQ(weight.scalar_type(), at::kBFloat16);
}

// The files are fp32: in half precision all weights of blocks are made when they are needed.
TEST(T5EncoderModelReference, StreamedWeightsMakeTheSameStates) {
  const TensorMap expected = expected_of("gated_gelu");
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto resident = load_t5_encoder_model(models() / "gated_gelu", dtype, at::kCPU);
    const auto streamed = load_t5_encoder_model(models() / "gated_gelu", dtype, at::kCPU, /*streams_weights=*/true);
    EXPECT_TRUE(at::equal(states(*streamed, expected, true), states(*resident, expected, true))) << dtype;
    for (const auto& item : streamed->named_parameters()) {
      const bool is_in_block = item.key().find(".block.") != std::string::npos && item.value().dim() == 2;
      const bool is_bias_table = item.key().find("relative_attention_bias") != std::string::npos;
      EXPECT_EQ(item.value().scalar_type(), is_in_block && !is_bias_table ? at::kFloat : dtype) << item.key();
    }
  }
}

// The weights of this one are so large that plain fp16 ends in values that are not finite.
TEST(T5EncoderModelReference, StaysFiniteWhereFp16Overflows) {
  const TensorMap expected = expected_of("overflow");
  const auto model = load_t5_encoder_model(models() / "overflow", at::kHalf, at::kCPU);
  const at::Tensor found = states(*model, expected, true);
  EXPECT_TRUE(found.isfinite().all().item<bool>());
  EXPECT_TRUE(near(found, expected.at("fp16.masked"), 2e-2));
}

}  // namespace
}  // namespace prefusion::text

// Prompts to states against the pipelines of diffusers, live.
#include "text/t5_text_encoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "tests/text/t5_reference.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using tests::near;

constexpr T5TextOptions kPixArt{.max_length = 12, .uses_mask = true, .lowercases = true};

std::vector<std::string> prompts() {
  return read_json(t5_reference() / "prompts.json").get<std::vector<std::string>>();
}

T5TextEncoder load(const T5TextOptions& options, const fs::path& folder = t5_reference() / "pipeline",
                   at::ScalarType dtype = at::kFloat) {
  return T5TextEncoder::load(folder / "tokenizer", folder / "text_encoder", dtype, at::kCPU, options);
}

TEST(T5TextEncoderReference, StatesEqualThoseOfTheThreePipelines) {
  const TensorMap expected = read_safetensors(t5_reference() / "pipeline.safetensors");
  EXPECT_TRUE(near(load({.max_length = 21}).encode(prompts()).states, expected.at("sd3"), 1e-5));
  EXPECT_TRUE(near(load({.max_length = 33}).encode(prompts()).states, expected.at("flux"), 1e-5));
  const T5TextStates pixart = load(kPixArt).encode(prompts());
  EXPECT_TRUE(near(pixart.states, expected.at("pixart"), 1e-5));
  EXPECT_TRUE(pixart.mask.equal(expected.at("pixart.mask").to(at::kBool)));
}

// A cache filled without streaming serves runs with it.
TEST(T5TextEncoderReference, StreamedWeightsHaveTheSameKey) {
  const auto key = [](bool streams, at::ScalarType dtype) {
    ContentHasher hash;
    load({.max_length = 21, .streams_weights = streams}, t5_reference() / "pipeline", dtype).add_to(hash);
    return hash.finish().hex();
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    EXPECT_EQ(key(true, dtype), key(false, dtype)) << dtype;
  }
  EXPECT_NE(key(true, at::kHalf), key(true, at::kBFloat16));
}

TEST(T5TextEncoderReference, EncodingOneByOneEqualsTheBatch) {
  T5TextEncoder encoder = load(kPixArt);
  const T5TextStates batch = encoder.encode(prompts());
  for (size_t i = 0; i < prompts().size(); ++i) {
    const T5TextStates one = encoder.encode({prompts()[i]});
    EXPECT_TRUE(near(one.states[0], batch.states[static_cast<int64_t>(i)], 1e-5));
    EXPECT_TRUE(one.mask[0].equal(batch.mask[static_cast<int64_t>(i)]));
  }
  EXPECT_FALSE(batch.states.requires_grad());
  EXPECT_EQ(encoder.encode({}).states.sizes(), (std::vector<int64_t>{0, 12, 32}));
}

TEST(T5TextEncoderReference, LowerCaseAndStrippingAreThoseOfPython) {
  const Json lower = read_json(t5_reference() / "lower.json");
  int shown = 0;
  for (size_t i = 0; i < lower[0].size() && shown < 5; ++i) {
    const auto text = lower[0][i].get<std::string>();
    if (python_strip(python_lower(text)) == lower[1][i].get<std::string>()) continue;
    ++shown;
    ADD_FAILURE() << Json(text).dump(-1, ' ', true);
  }
  EXPECT_GT(lower[0].size(), 10000u);
}

TEST(T5TextEncoderReference, CountsAndReportsTruncatedTokensOnce) {
  T5TextEncoder encoder = load({.max_length = 21});
  const std::string prompt = prompts().back();
  const auto total = static_cast<int64_t>(encoder.tokenizer().encode(prompt).size());
  EXPECT_EQ(encoder.truncated_tokens(prompt), total - 20);
  EXPECT_EQ(encoder.truncated_tokens("a red circle"), 0);
  testing::internal::CaptureStderr();
  encoder.encode({prompt, prompt, "a red circle"});
  encoder.encode({prompt});
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t first = log.find("longer than 21 T5 tokens; cut off: '");
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("longer than", first + 1), std::string::npos) << log;
}

std::string hash_of(const T5TextEncoder& encoder) {
  ContentHasher hash;
  encoder.add_to(hash);
  return hash.finish().hex();
}

TEST(T5TextEncoderReference, ContentHashFollowsWeightsSettingsAndPrecision) {
  const std::string key = hash_of(load({.max_length = 21}));
  EXPECT_EQ(key.size(), 32u);
  EXPECT_EQ(hash_of(load({.max_length = 21})), key);
  EXPECT_NE(hash_of(load({.max_length = 22})), key);
  EXPECT_NE(hash_of(load({.max_length = 21, .uses_mask = true})), key);
  EXPECT_NE(hash_of(load({.max_length = 21, .lowercases = true})), key);
  EXPECT_NE(hash_of(load({.max_length = 21}, t5_reference() / "pipeline", at::kBFloat16)), key);
  tests::TempDir copy;
  fs::copy(t5_reference() / "pipeline", copy.path(), fs::copy_options::recursive);
  EXPECT_EQ(hash_of(load({.max_length = 21}, copy.path())), key);
  const fs::path weights_path = copy / "text_encoder" / "model.safetensors";
  TensorMap weights = read_safetensors(weights_path);
  for (auto& [name, tensor] : weights) tensor = tensor.clone();
  weights.at("encoder.final_layer_norm.weight") += 1e-3;
  write_safetensors(weights_path, weights);
  EXPECT_NE(hash_of(load({.max_length = 21}, copy.path())), key);
}

TEST(T5TextEncoderReference, RefusesPartsThatDoNotFit) {
  EXPECT_THROW(load({.max_length = 0}), Error);
  EXPECT_THROW(load({}, t5_reference() / "missing"), Error);
  tests::TempDir copy;
  fs::copy(t5_reference() / "pipeline", copy.path(), fs::copy_options::recursive);
  fs::remove_all(copy / "text_encoder");
  EXPECT_THROW(load({}, copy.path()), Error);
  // Its 99 embeddings cannot hold the tokenizer's ids.
  fs::copy(t5_reference() / "models" / "gated_gelu", copy / "text_encoder");
  try {
    load({}, copy.path());
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    EXPECT_NE(std::string(error.what()).find("'vocab_size' is 99"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace prefusion::text

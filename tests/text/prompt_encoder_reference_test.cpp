// Prompt embeddings against diffusers' StableDiffusionPipeline.encode_prompt, live.
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
#include "tests/text/text_reference.h"
#include "text/sd_prompt_encoder.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using tests::near;

std::vector<std::string> prompts() {
  return read_json(text_reference() / "prompts.json").get<std::vector<std::string>>();
}

SdPromptEncoder load(const fs::path& folder, int64_t clip_skip = 0, at::ScalarType dtype = at::kFloat) {
  return SdPromptEncoder::load(folder, dtype, at::kCPU, {.clip_skip = clip_skip});
}

at::Tensor states(PromptEncoder& encoder) {
  return encoder.encode(prompts()).encoder_hidden_states;
}

TEST(PromptEncoderReference, EncodesAsThePipelineForEveryClipSkip) {
  const TensorMap expected = read_safetensors(text_reference() / "pipeline.safetensors");
  SdPromptEncoder plain = SdPromptEncoder::load(text_reference() / "pipeline", at::kFloat, at::kCPU);
  EXPECT_TRUE(near(states(plain), expected.at("clip_skip.none"), 1e-5));
  for (const int64_t skip : {0, 1, 2, 3}) {
    SdPromptEncoder encoder = load(text_reference() / "pipeline", skip);
    EXPECT_TRUE(near(states(encoder), expected.at("clip_skip." + std::to_string(skip)), 1e-5)) << skip;
  }
}

TEST(PromptEncoderReference, HidesPaddingWhereTheConfigAsksForIt) {
  SdPromptEncoder encoder = load(text_reference() / "pipeline_masked");
  const TensorMap expected = read_safetensors(text_reference() / "pipeline.safetensors");
  EXPECT_TRUE(near(states(encoder), expected.at("masked"), 1e-5));
}

SdPromptEncoder load_segments(const std::string& folder, int64_t clip_skip = 0) {
  return SdPromptEncoder::load(text_reference() / folder, at::kFloat, at::kCPU,
                               {.clip_skip = clip_skip, .long_prompts = LongPrompts::kSegments});
}

TEST(PromptEncoderReference, SegmentsAreSentencesEncodedByThemselves) {
  const TensorMap expected = read_safetensors(text_reference() / "pipeline.safetensors");
  const auto texts = read_json(text_reference() / "segments.json").get<std::vector<std::string>>();
  SdPromptEncoder encoder = load_segments("pipeline");
  const at::Tensor batch = encoder.encode(texts).encoder_hidden_states;
  EXPECT_EQ(batch.size(1), 240);
  EXPECT_TRUE(near(batch, expected.at("segments"), 1e-5));
  EXPECT_TRUE(near(encoder.encode_negative(texts).encoder_hidden_states, batch, 1e-5));
  EXPECT_TRUE(near(encoder.encode({texts[1]}).encoder_hidden_states[0], batch[1], 1e-5));
  for (const std::string& text : texts) EXPECT_EQ(encoder.num_chunks(text), 1);
  SdPromptEncoder skipping = load_segments("pipeline", 1);
  EXPECT_TRUE(near(skipping.encode(texts).encoder_hidden_states, expected.at("segments.skip"), 1e-5));
  SdPromptEncoder masked = load_segments("pipeline_masked");
  EXPECT_TRUE(near(masked.encode(texts).encoder_hidden_states, expected.at("segments.masked"), 1e-5));
}

TEST(PromptEncoderReference, SegmentOfOneShortSentenceBeginsAsThePlainPromptDoes) {
  SdPromptEncoder segments = load_segments("pipeline");
  SdPromptEncoder plain = load(text_reference() / "pipeline");
  const auto count = static_cast<int64_t>(plain.tokenizer().encode("a red circle.").size());
  EXPECT_TRUE(near(segments.encode({"a red circle"}).encoder_hidden_states.slice(1, 0, count + 1),
                   plain.encode({"a red circle."}).encoder_hidden_states.slice(1, 0, count + 1), 1e-5));
  EXPECT_NE(segments.content_key(), plain.content_key());
}

TEST(PromptEncoderReference, SegmentsSayWhatIsCutOff) {
  SdPromptEncoder encoder = load_segments("pipeline");
  const auto count = [&](const std::string& text) { return std::ssize(encoder.tokenizer().encode(text)); };
  const std::string words = "word word word word word word word word word word word word word word word word";
  const std::string longer = words + " word word word word word word";
  EXPECT_EQ(encoder.truncated_tokens("A dog. A cat. " + words), std::max<int64_t>(0, count(words + ".") - 22));
  EXPECT_EQ(encoder.truncated_tokens(longer), count(longer + ".") - 22);
  std::string many;  // sentences of one token and a full stop, each with a begin token
  for (int i = 0; i < 81; ++i) many += "!.";
  ASSERT_EQ(count("!."), 2);
  EXPECT_EQ(encoder.truncated_tokens(many), 2);
  EXPECT_EQ(encoder.truncated_tokens(many.substr(0, 160)), 0);
}

TEST(PromptEncoderReference, EncodingOneByOneEqualsTheBatch) {
  SdPromptEncoder encoder = load(text_reference() / "pipeline");
  const at::Tensor batch = states(encoder);
  for (size_t i = 0; i < prompts().size(); ++i) {
    EXPECT_TRUE(near(encoder.encode({prompts()[i]}).encoder_hidden_states[0], batch[static_cast<int64_t>(i)], 1e-5));
  }
  EXPECT_FALSE(batch.requires_grad());
}

TEST(PromptEncoderReference, CountsAndReportsTruncatedTokensOnce) {
  SdPromptEncoder encoder = load(text_reference() / "pipeline");
  const std::string prompt = prompts().back();
  const auto total = static_cast<int64_t>(encoder.tokenizer().encode(prompt).size());
  EXPECT_EQ(encoder.truncated_tokens(prompt), total - 22);
  EXPECT_EQ(encoder.truncated_tokens("a red circle"), 0);
  testing::internal::CaptureStderr();
  encoder.encode({prompt, prompt, "a red circle"});
  encoder.encode({prompt});
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t first = log.find("cut off: 'x jumps over the lazy dog");
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("cut off", first + 1), std::string::npos) << log;
}

TEST(PromptEncoderReference, ContentKeyFollowsWeightsSettingsAndPrecision) {
  const std::string key = load(text_reference() / "pipeline").content_key();
  EXPECT_EQ(key.size(), 32u);
  EXPECT_EQ(load(text_reference() / "pipeline").content_key(), key);
  EXPECT_NE(load(text_reference() / "pipeline", 1).content_key(), key);
  EXPECT_NE(load(text_reference() / "pipeline_masked").content_key(), key);
  EXPECT_NE(load(text_reference() / "pipeline", 0, at::kBFloat16).content_key(), key);
  tests::TempDir copy;
  fs::copy(text_reference() / "pipeline", copy.path(), fs::copy_options::recursive);
  EXPECT_EQ(load(copy.path()).content_key(), key);
  const fs::path weights_path = copy / "text_encoder" / "model.safetensors";
  TensorMap weights = read_safetensors(weights_path);
  weights["final_layer_norm.bias"] = weights.at("final_layer_norm.bias") + 1e-3;
  for (auto& [name, tensor] : weights) tensor = tensor.clone();
  write_safetensors(weights_path, weights);
  EXPECT_NE(load(copy.path()).content_key(), key);
}

TEST(PromptEncoderReference, RefusesPartsThatDoNotFit) {
  EXPECT_THROW(load(text_reference() / "pipeline", 4), Error);
  EXPECT_THROW(load(text_reference() / "missing"), Error);
  tests::TempDir copy;
  fs::copy(text_reference() / "pipeline", copy.path(), fs::copy_options::recursive);
  fs::remove_all(copy / "text_encoder");
  // Its 99 embeddings cannot hold the tokenizer's ids.
  fs::copy(text_reference() / "models" / "plain", copy / "text_encoder");
  EXPECT_THROW(load(copy.path()), Error);
}

}  // namespace
}  // namespace prefusion::text

// The text encoder against transformers' CLIPTextModel and CLIPTextModelWithProjection, live.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "tests/support/tensor_near.h"
#include "tests/text/text_reference.h"
#include "text/clip_text_model.h"

namespace prefusion::text {
namespace {

using tests::near;

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(text_reference() / "models")) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  return names;
}

std::filesystem::path model_folder(const std::string& name) {
  return text_reference() / "models" / name;
}

TensorMap expected_of(const std::string& name) {
  return read_safetensors(text_reference() / "models" / (name + ".safetensors"));
}

at::Tensor mask_of(const TensorMap& expected) {
  return expected.contains("attention_mask") ? expected.at("attention_mask") : at::Tensor();
}

TensorMap outputs_of(const ClipTextOutput& output) {
  TensorMap map = {{"last_hidden_state", output.last_hidden_state}, {"pooled", output.pooled}};
  if (output.text_embeds.defined()) map.emplace("text_embeds", output.text_embeds);
  for (size_t i = 0; i < output.hidden_states.size(); ++i) {
    map.emplace("hidden_states." + std::to_string(i), output.hidden_states[i]);
  }
  return map;
}

TEST(ClipTextModelReference, ForwardMatchesEveryOutput) {
  const std::vector<std::string> names = model_names();
  ASSERT_GE(names.size(), 10u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const TensorMap expected = expected_of(name);
    const auto model = load_clip_text_model(model_folder(name), at::kFloat, at::kCPU);
    const TensorMap outputs = outputs_of(model->forward(expected.at("input_ids"), mask_of(expected)));
    for (const auto& [key, tensor] : outputs) {
      if (name == "whole_clip" && key.starts_with("hidden_states")) continue;
      ASSERT_TRUE(expected.contains(key)) << key;
      EXPECT_TRUE(near(tensor, expected.at(key), 1e-5)) << key;
    }
    for (const char* key : {"hidden_states.1", "text_embeds", "pooled"}) {
      EXPECT_TRUE(outputs.contains(key) || !expected.contains(key)) << key;
    }
  }
}

TEST(ClipTextModelReference, GradientsMatch) {
  for (const std::string& name : model_names()) {
    // Attention over one token has no gradient, and of the whole model only outputs are given.
    if (name == "whole_clip" || name == "one_token") continue;
    SCOPED_TRACE(name);
    const TensorMap expected = expected_of(name);
    const auto model = load_clip_text_model(model_folder(name), at::kFloat, at::kCPU);
    for (auto& parameter : model->parameters()) parameter.requires_grad_(true);
    const TensorMap outputs = outputs_of(model->forward(expected.at("input_ids"), mask_of(expected)));
    at::Tensor loss = at::zeros({});
    for (const char* key : {"last_hidden_state", "pooled", "text_embeds", "hidden_states.1"}) {
      const auto output = outputs.find(key);
      if (output == outputs.end()) continue;
      const int64_t count = output->second.numel();
      loss = loss + (output->second * at::linspace(-1, 1, count).view(output->second.sizes())).sum();
    }
    loss.backward();
    int compared = 0;
    for (const auto& parameter : model->named_parameters()) {
      const auto gradient = expected.find("grad." + parameter.key());
      if (gradient == expected.end()) continue;
      ++compared;
      // The key bias has no influence at all: its gradient is rounding noise.
      if (parameter.key().ends_with("k_proj.bias")) continue;
      EXPECT_TRUE(near(parameter.value().grad(), gradient->second, 1e-4)) << parameter.key();
    }
    EXPECT_EQ(compared, static_cast<int>(model->parameters().size()));
  }
}

TEST(ClipTextModelReference, TextsTogetherAreThoseAlone) {
  for (const std::string& name : model_names()) {
    SCOPED_TRACE(name);
    const at::NoGradGuard no_gradients;
    const auto model = load_clip_text_model(model_folder(name), at::kFloat, at::kCPU);
    const at::Tensor ids = expected_of(name).at("input_ids");
    if (!model->forward(ids).text_embeds.defined()) continue;
    std::vector<at::Tensor> texts;
    std::vector<at::Tensor> alone;
    std::vector<at::Tensor> forwards;
    for (int64_t length = ids.size(1); length >= 1; length = length / 2) {  // of several lengths
      texts.push_back(ids.slice(0, 0, 1).slice(1, ids.size(1) - length));
      alone.push_back(model->text_embeds_of_each({texts.back()}));
      forwards.push_back(model->forward(texts.back()).text_embeds);
    }
    const at::Tensor together = model->text_embeds_of_each(texts);
    EXPECT_TRUE(at::equal(together, at::cat(alone)));
    EXPECT_TRUE(near(together, at::cat(forwards), 1e-5));
  }
}

TEST(ClipTextModelReference, HalfPrecisionStaysClose) {
  for (const char* name : {"plain", "projection", "odd_heads"}) {
    SCOPED_TRACE(name);
    const TensorMap expected = expected_of(name);
    const auto model = load_clip_text_model(model_folder(name), at::kBFloat16, at::kCPU);
    const at::Tensor found = model->forward(expected.at("input_ids")).last_hidden_state;
    EXPECT_EQ(found.scalar_type(), at::kBFloat16);
    // Both round at other places, so they are compared with each other and each with fp32 at bf16's precision.
    EXPECT_TRUE(near(found, expected.at("bf16"), 5e-2));
    EXPECT_TRUE(near(found, expected.at("last_hidden_state"), 5e-2));
  }
}

TEST(ClipTextModelReference, KeysAreThoseOfTheCheckpoint) {
  const auto model = load_clip_text_model(model_folder("projection"), at::kFloat, at::kCPU);
  const TensorMap weights = read_safetensors(model_folder("projection") / "model.safetensors");
  const TensorMap found = nn::tensor_map(*model);
  ASSERT_EQ(found.size(), weights.size());
  for (const auto& [key, tensor] : weights) EXPECT_TRUE(found.contains(key)) << key;
}

}  // namespace
}  // namespace prefusion::text

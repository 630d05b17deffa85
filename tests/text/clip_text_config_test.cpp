#include "text/clip_text_config.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "tests/support/temp_dir.h"
#include "text/clip_text_model.h"

namespace prefusion::text {
namespace {

constexpr const char* kSmall = R"({"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 6, "eos_token_id": 19, "architectures": ["CLIPTextModel"]})";

at::Tensor row(const std::vector<int64_t>& tokens) {
  return at::tensor(tokens, at::kLong).unsqueeze(0);
}

void expect_refused(const char* key, const Json& value) {
  Json json = parse_json(kSmall, "test");
  json[key] = value;
  try {
    make_clip_text_model(json.dump(), "text_encoder/config.json");
    ADD_FAILURE() << key << " = " << value << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    EXPECT_NE(std::string(error.what()).find("text_encoder/config.json"), std::string::npos) << error.what();
  }
}

TEST(ClipTextConfig, DefaultsAreTransformersOwn) {
  const ClipTextConfig config = parse_clip_text_config(Json::object(), "empty");
  EXPECT_EQ(config.vocab_size, 49408);
  EXPECT_EQ(config.hidden_size, 512);
  EXPECT_EQ(config.max_position_embeddings, 77);
  EXPECT_EQ(config.eos_token_id, 49407);
  EXPECT_EQ(config.hidden_act, "quick_gelu");
  EXPECT_FALSE(config.has_projection);
}

TEST(ClipTextConfig, RefusesWhatItCannotDo) {
  expect_refused("num_attention_heads", 3);
  expect_refused("num_attention_heads", 0);
  expect_refused("hidden_size", -8);
  expect_refused("hidden_size", "8");
  expect_refused("hidden_act", "tanhshrink");
  expect_refused("model_type", "t5");
  expect_refused("architectures", Json{"T5EncoderModel"});
  expect_refused("eos_token_id", Json{1, 2});
  expect_refused("vocab_size", 1e12);
  expect_refused("relative_attention_num_buckets", 32);
  EXPECT_THROW(make_clip_text_model("[]", "x"), Error);
  EXPECT_THROW(make_clip_text_model("{", "x"), Error);
}

TEST(ClipTextModel, RefusesIdsOfTheWrongShape) {
  const auto model = make_clip_text_model(kSmall, "small");
  nn::init_weights(*model, at::detail::createCPUGenerator(1));
  EXPECT_EQ(model->forward(at::zeros({2, 6}, at::kLong)).last_hidden_state.sizes(), (std::vector<int64_t>{2, 6, 8}));
  EXPECT_THROW(model->forward(at::zeros({2, 7}, at::kLong)), Error);
  EXPECT_THROW(model->forward(at::zeros({2}, at::kLong)), Error);
  EXPECT_THROW(model->forward(at::zeros({2, 0}, at::kLong)), Error);
  EXPECT_THROW(model->forward(at::zeros({2, 6}, at::kLong), at::ones({2, 5}, at::kLong)), Error);
}

TEST(ClipTextModel, LaterTokensDoNotChangeEarlierStates) {
  const auto model = make_clip_text_model(kSmall, "small");
  nn::init_weights(*model, at::detail::createCPUGenerator(1));
  const at::Tensor first = row({1, 2, 3, 4});
  const at::Tensor second = row({1, 2, 9, 19});
  const at::Tensor a = model->forward(first).last_hidden_state, b = model->forward(second).last_hidden_state;
  EXPECT_TRUE(at::allclose(a.narrow(1, 0, 2), b.narrow(1, 0, 2)));
  EXPECT_FALSE(at::allclose(a.narrow(1, 2, 1), b.narrow(1, 2, 1)));
}

TEST(ClipTextModel, PoolsAtTheFirstEndToken) {
  Json json = parse_json(kSmall, "test");
  const auto pooled_position = [&](std::vector<int64_t> tokens) {
    const auto model = make_clip_text_model(json.dump(), "small");
    nn::init_weights(*model, at::detail::createCPUGenerator(1));
    const ClipTextOutput output = model->forward(row(tokens));
    for (int64_t i = 0; i < static_cast<int64_t>(tokens.size()); ++i) {
      if (at::equal(output.pooled[0], output.last_hidden_state[0][i])) return i;
    }
    return int64_t{-1};
  };
  EXPECT_EQ(pooled_position({1, 19, 3, 19}), 1);
  EXPECT_EQ(pooled_position({1, 2, 3, 4}), 0);  // none at all: the first, as in transformers
  json["eos_token_id"] = 2;                     // the old rule: the highest id
  EXPECT_EQ(pooled_position({1, 2, 18, 2}), 2);
}

TEST(ClipTextModel, LoadingNamesMissingFiles) {
  tests::TempDir folder;
  EXPECT_THROW(load_clip_text_model(folder.path(), at::kFloat, at::kCPU), Error);
  EXPECT_THROW(load_clip_text_model(folder / "none", at::kFloat, at::kCPU), Error);
}

}  // namespace
}  // namespace prefusion::text

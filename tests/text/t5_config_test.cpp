#include "text/t5_config.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "tests/support/temp_dir.h"
#include "text/t5_encoder_model.h"

namespace prefusion::text {
namespace {

void expect_refused(const char* key, const Json& value, const char* named = nullptr) {
  try {
    parse_t5_config({{"model_type", "t5"}, {key, value}}, "text_encoder_3/config.json");
    ADD_FAILURE() << key << " = " << value << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    const std::string message = error.what();
    EXPECT_NE(message.find("text_encoder_3/config.json"), std::string::npos) << message;
    EXPECT_NE(message.find(named ? named : key), std::string::npos) << message;
  }
}

TEST(T5Config, DefaultsAreTransformersOwn) {
  const T5Config config = parse_t5_config(Json::object(), "empty");
  EXPECT_EQ(config.vocab_size, 32128);
  EXPECT_EQ(config.d_model, 512);
  EXPECT_EQ(config.d_kv, 64);
  EXPECT_EQ(config.num_layers, 6);
  EXPECT_EQ(config.relative_attention_max_distance, 128);
  EXPECT_EQ(config.dense_act_fn, "relu");
  EXPECT_FALSE(config.is_gated_act);
}

TEST(T5Config, ReadsTheFeedForwardProjection) {
  const auto parse = [](const Json& json) { return parse_t5_config(json, "test"); };
  const T5Config gelu = parse({{"feed_forward_proj", "gated-gelu"}});
  EXPECT_TRUE(gelu.is_gated_act);
  EXPECT_EQ(gelu.dense_act_fn, "gelu_new");
  EXPECT_EQ(parse({{"feed_forward_proj", "gelu"}}).dense_act_fn, "gelu");
  EXPECT_EQ(parse({{"feed_forward_proj", "gated-silu"}}).dense_act_fn, "silu");
  EXPECT_EQ(parse({{"feed_forward_proj", "gated-gelu"}, {"dense_act_fn", "relu"}}).dense_act_fn, "relu");
}

TEST(T5Config, RefusesWhatItCannotDoByName) {
  expect_refused("architectures", Json{"UMT5EncoderModel"}, "UMT5EncoderModel");
  EXPECT_THROW(parse_t5_config({{"model_type", "umt5"}}, "x"), Error);
  EXPECT_THROW(parse_t5_config({{"model_type", "mt5"}}, "x"), Error);
  expect_refused("feed_forward_proj", "half-gelu");
  expect_refused("feed_forward_proj", "gated-gelu-new");
  expect_refused("is_decoder", true);
  expect_refused("num_layers", 0);
  expect_refused("d_kv", -1);
  expect_refused("d_model", "512");
  expect_refused("num_heads", 1e12);
  expect_refused("relative_attention_num_buckets", 3);
  expect_refused("relative_attention_max_distance", 8);
  expect_refused("rope_theta", 10000);
}

TEST(T5EncoderModel, RefusesUnknownActivationsAndIdsOfTheWrongShape) {
  T5Config config{.vocab_size = 10, .d_model = 4, .d_kv = 2, .d_ff = 3, .num_layers = 1, .num_heads = 2};
  T5EncoderModel model(config, "small");
  EXPECT_THROW(model.forward(at::zeros({2}, at::kLong)), Error);
  EXPECT_THROW(model.forward(at::zeros({2, 0}, at::kLong)), Error);
  EXPECT_THROW(model.forward(at::zeros({2, 3}, at::kLong), at::ones({2, 4}, at::kLong)), Error);
  config.dense_act_fn = "tanhshrink";
  EXPECT_THROW(T5EncoderModel(config, "small"), Error);
}

TEST(T5EncoderModel, LoadingNamesMissingFiles) {
  tests::TempDir folder;
  EXPECT_THROW(load_t5_encoder_model(folder.path(), at::kFloat, at::kCPU), Error);
  EXPECT_THROW(load_t5_encoder_model(folder / "none", at::kFloat, at::kCPU), Error);
}

}  // namespace
}  // namespace prefusion::text

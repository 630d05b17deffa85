#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/resnet_block.h"
#include "nn/rotary_embedding.h"
#include "nn/timestep_embedding.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

using tests::near;

at::Tensor randn(at::IntArrayRef shape, uint64_t seed) {
  return philox_randn(shape, {.seed = seed}, RandomPurpose::kOther);
}

std::vector<std::string> parameter_names(const torch::nn::Module& module) {
  std::vector<std::string> names;
  for (const auto& item : module.named_parameters()) names.push_back(item.key());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(SinusoidalEmbedding, PutsCosinesFirstWhenFlippedAndPadsOddDims) {
  const at::Tensor embedding = sinusoidal_embedding(at::full({1}, 10, at::kLong), {.dim = 5});
  ASSERT_EQ(embedding.sizes(), (at::IntArrayRef{1, 5}));
  const float* values = embedding.data_ptr<float>();
  const float expected[] = {std::cos(10.0f), std::cos(0.1f), std::sin(10.0f), std::sin(0.1f), 0.0f};
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(values[i], expected[i], 1e-6) << i;
}

TEST(SinusoidalEmbedding, ShiftStretchesTheFrequencies) {
  const at::Tensor embedding =
      sinusoidal_embedding(at::full({1}, 2.5), {.dim = 4, .flip_sin_to_cos = false, .freq_shift = 1});
  const float* values = embedding.data_ptr<float>();
  const float expected[] = {std::sin(2.5f), std::sin(2.5e-4f), std::cos(2.5f), std::cos(2.5e-4f)};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(values[i], expected[i], 1e-6) << i;
}

TEST(Attention, IsSoftmaxOfScaledProductsPerHead) {
  const at::NoGradGuard no_grad;
  Attention attention(
      AttentionOptions{.query_dim = 6, .cross_attention_dim = 5, .num_heads = 2, .head_dim = 4, .has_qkv_bias = true});
  init_weights(*attention, make_torch_generator(3));
  const at::Tensor states = randn({2, 3, 6}, 1);
  const at::Tensor context = randn({2, 7, 5}, 2);
  std::vector<at::Tensor> heads;
  for (int64_t h = 0; h < 2; ++h) {
    const auto head = [&](const at::Tensor& x) { return x.slice(2, 4 * h, 4 * h + 4); };
    const at::Tensor scores =
        at::matmul(head(attention->to_q(states)), head(attention->to_k(context)).transpose(1, 2)) / 2.0;
    heads.push_back(at::matmul(at::softmax(scores, -1), head(attention->to_v(context))));
  }
  const auto parameters = attention->named_parameters();
  const at::Tensor expected = at::linear(at::cat(heads, 2), parameters["to_out.0.weight"], parameters["to_out.0.bias"]);
  EXPECT_TRUE(near(attention->forward(states, context), expected, 1e-5));
}

TEST(Attention, ALargeNegativeBiasLeavesContextOut) {
  const at::NoGradGuard no_grad;
  Attention attention(AttentionOptions{.query_dim = 6, .cross_attention_dim = 5, .num_heads = 2, .head_dim = 4});
  init_weights(*attention, make_torch_generator(3));
  const at::Tensor states = randn({2, 3, 6}, 1);
  const at::Tensor context = randn({2, 7, 5}, 2);
  const at::Tensor bias = at::zeros({2, 1, 1, 7});
  bias.slice(3, 4).fill_(-10000);
  EXPECT_TRUE(near(attention->forward(states, context, /*user_states=*/{}, bias),
                   attention->forward(states, context.slice(1, 0, 4)), 1e-6));
}

TEST(Attention, TreatsAPictureAsItsPixels) {
  const at::NoGradGuard no_grad;
  Attention attention(AttentionOptions{.query_dim = 8,
                                       .num_heads = 1,
                                       .head_dim = 8,
                                       .norm_num_groups = 2,
                                       .has_residual = true,
                                       .output_scale_factor = 1.5});
  init_weights(*attention, make_torch_generator(3));
  const at::Tensor image = randn({2, 8, 3, 5}, 1);
  const at::Tensor tokens = attention->forward(image.flatten(2).transpose(1, 2));
  EXPECT_TRUE(near(attention->forward_image(image), tokens.transpose(1, 2).reshape({2, 8, 3, 5}), 1e-6));
}

TEST(Attention, RenamesDeprecatedParameters) {
  TensorMap weights = {{"a.query.weight", at::ones({4, 4, 1, 1})}, {"a.query.bias", at::ones({4})},
                       {"a.proj_attn.weight", at::ones({4, 4})},   {"b.query.weight", at::ones({4, 4})},
                       {"a.key.weight", at::ones({4, 4, 3, 3})},   {"a.to_v.weight", at::ones({4, 4})}};
  rename_deprecated_attention(weights, {"a"});
  EXPECT_EQ(weights.at("a.to_q.weight").sizes(), (at::IntArrayRef{4, 4}));
  EXPECT_TRUE(weights.contains("a.to_q.bias"));
  EXPECT_TRUE(weights.contains("a.to_out.0.weight"));
  EXPECT_TRUE(weights.contains("a.to_v.weight"));
  EXPECT_TRUE(weights.contains("b.query.weight"));
  EXPECT_EQ(weights.at("a.to_k.weight").dim(), 4);
}

TEST(RotaryEmbedding, TurnsNeighboursByPositionOfTheirAxis) {
  const at::Tensor positions = at::tensor({0.0, 5.0, 2.0, 7.0}).view({2, 2});
  const RotaryEmbedding rotary = rotary_embedding(positions, {4, 2}, /*theta=*/100);
  ASSERT_EQ(rotary.cosines.sizes(), (at::IntArrayRef{2, 3}));
  const double angles[2][3] = {{0, 0, 5}, {2, 2 * 0.1, 7}};
  const at::Tensor states = randn({1, 2, 2, 6}, 1);
  const at::Tensor turned = apply_rotary(states, rotary);
  for (int64_t token = 0; token < 2; ++token) {
    for (int64_t pair = 0; pair < 3; ++pair) {
      const auto at = [&](const at::Tensor& x, int64_t i) { return x[0][1][token][2 * pair + i].item<double>(); };
      const double cosine = std::cos(angles[token][pair]);
      const double sine = std::sin(angles[token][pair]);
      EXPECT_NEAR(at(turned, 0), at(states, 0) * cosine - at(states, 1) * sine, 1e-6);
      EXPECT_NEAR(at(turned, 1), at(states, 1) * cosine + at(states, 0) * sine, 1e-6);
    }
  }
}

TEST(RotaryEmbedding, ScoresDependOnDistancesAlone) {
  const at::Tensor positions = at::arange(6, at::kFloat).unsqueeze(1);
  const at::Tensor query = randn({1, 1, 1, 8}, 1).expand({1, 1, 6, 8});
  const at::Tensor key = randn({1, 1, 1, 8}, 2).expand({1, 1, 6, 8});
  const auto scores = [&](const at::Tensor& places) {
    const RotaryEmbedding rotary = rotary_embedding(places, {8});
    return at::matmul(apply_rotary(query, rotary), apply_rotary(key, rotary).transpose(-1, -2));
  };
  EXPECT_TRUE(near(scores(positions + 50), scores(positions), 1e-5));
  EXPECT_FALSE(near(scores(positions * 2), scores(positions), 1e-2));
  EXPECT_EQ(apply_rotary(query.to(at::kHalf), rotary_embedding(positions, {8})).scalar_type(), at::kHalf);
}

TEST(FeedForward, GatesOrActivatesByName) {
  const at::NoGradGuard no_grad;
  const at::Tensor input = randn({2, 3, 4}, 1);
  for (const char* name : {"geglu", "gelu", "gelu-approximate", "geglu-approximate"}) {
    FeedForward feed_forward(4, name);
    init_weights(*feed_forward, make_torch_generator(3));
    EXPECT_EQ(parameter_names(*feed_forward),
              (std::vector<std::string>{"net.0.proj.bias", "net.0.proj.weight", "net.2.bias", "net.2.weight"}));
    const auto parameters = feed_forward->named_parameters();
    const at::Tensor projected = at::linear(input, parameters["net.0.proj.weight"], parameters["net.0.proj.bias"]);
    at::Tensor hidden;
    if (std::string(name) == "geglu") hidden = projected.slice(2, 0, 16) * at::gelu(projected.slice(2, 16, 32));
    if (std::string(name) == "gelu") hidden = at::gelu(projected);
    if (std::string(name) == "gelu-approximate") hidden = at::gelu(projected, "tanh");
    if (std::string(name) == "geglu-approximate") hidden = projected / (1 + at::exp(-1.702 * projected));
    const at::Tensor expected = at::linear(hidden, parameters["net.2.weight"], parameters["net.2.bias"]);
    EXPECT_TRUE(near(feed_forward->forward(input), expected, 1e-5)) << name;
  }
}

TEST(FeedForward, RefusesAnUnknownActivationByName) {
  try {
    FeedForward feed_forward(4, "swiglu");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("swiglu"), std::string::npos);
  }
}

TEST(ResnetBlock, HasAShortcutOnlyWhereChannelsChange) {
  const ResnetBlockOptions options{
      .in_channels = 4, .out_channels = 4, .norm_num_groups = 2, .activation = activation_by_name("silu", "test")};
  EXPECT_EQ(parameter_names(*ResnetBlock(options)).size(), 8u);
  ResnetBlockOptions wider = options;
  wider.out_channels = 6;
  EXPECT_EQ(parameter_names(*ResnetBlock(wider)).size(), 10u);
}

TEST(Upsample2D, RepeatsPixelsToTheSizeAskedFor) {
  const at::NoGradGuard no_grad;
  Upsample2D upsample(1);
  const auto parameters = upsample->named_parameters();
  parameters["conv.weight"].zero_();
  parameters["conv.weight"][0][0][1][1] = 1;
  parameters["conv.bias"].zero_();
  const at::Tensor input = at::arange(4, at::kFloat).view({1, 1, 2, 2});
  const at::Tensor expected = at::tensor({0, 0, 1, 0, 0, 1, 2, 2, 3}, at::kFloat).view({1, 1, 3, 3});
  EXPECT_TRUE(at::equal(upsample->forward(input, 3, 3), expected));
}

}  // namespace
}  // namespace prefusion::nn

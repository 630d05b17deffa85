// The parts of diffusion transformers by their formulas; against diffusers they are tested in tests/unet.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "nn/ada_layer_norm.h"
#include "nn/joint_attention.h"
#include "nn/layers.h"
#include "nn/patch_embedding.h"
#include "nn/rms_norm.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

using tests::near;

at::Tensor draw(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, make_torch_generator(seed), at::kFloat);
}

TEST(RMSNorm, DividesByTheRootMeanSquareWithAndWithoutAWeight) {
  const at::Tensor input = draw({3, 5, 8}, 1);
  const at::Tensor normed = input / (input.pow(2).mean(-1, /*keepdim=*/true) + 0.5).sqrt();
  RMSNorm plain(8, 0.5, /*has_weight=*/false);
  EXPECT_TRUE(plain->parameters().empty());
  EXPECT_TRUE(near(plain->forward(input), normed, 1e-6));
  RMSNorm weighted(8, 0.5);
  weighted->weight.set_data(draw({8}, 2));
  EXPECT_TRUE(near(weighted->forward(input), normed * weighted->weight, 1e-6));
}

TEST(RMSNorm, TakesTheMeanOfHalfPrecisionInFp32) {
  RMSNorm norm(4, 1e-6, /*has_weight=*/false);
  const at::Tensor large = at::full({1, 4}, 3e4, at::kHalf);  // its square is no half number
  EXPECT_TRUE(near(norm->forward(large), at::ones({1, 4}), 1e-3));
}

TEST(Positions, HalfTellTheColumnAndHalfTheRow) {
  const at::Tensor positions =
      sin_cos_positions(2, 3, {.dim = 8, .base_size = 6, .interpolation_scale = 2}).view({2, 3, 8});
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t column = 0; column < 3; ++column) {
      // Both sides span base_size / interpolation_scale = 3, whatever their number of patches.
      const double x = column / (3.0 / 6.0) / 2.0, y = row / (2.0 / 6.0) / 2.0;
      const at::Tensor expected = at::tensor({std::sin(x), std::sin(x / 100), std::cos(x), std::cos(x / 100),
                                              std::sin(y), std::sin(y / 100), std::cos(y), std::cos(y / 100)});
      EXPECT_TRUE(near(positions[row][column], expected, 1e-6)) << row << ", " << column;
    }
  }
  EXPECT_THROW(sin_cos_positions(2, 2, {.dim = 6}), Error);
  EXPECT_THROW(sin_cos_positions(2, 2, {.dim = 8, .base_size = 0}), Error);
}

TEST(PatchEmbedding, PositionsFollowTheSizeOfEachPass) {
  PatchEmbedding patches(
      PatchEmbeddingOptions{.in_channels = 1, .patch_size = 1, .positions = {.dim = 8, .base_size = 4}});
  patches->proj->weight.set_data(at::zeros({8, 1, 1, 1}));
  patches->proj->bias.set_data(at::zeros({8}));
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{2, 6}, {3, 4}, {4, 3}, {4, 3}}) {
    const at::Tensor expected = sin_cos_positions(height, width, {.dim = 8, .base_size = 4});
    EXPECT_TRUE(at::equal(patches->forward(at::zeros({1, 1, height, width}))[0], expected));
  }
}

TEST(PatchEmbedding, ANewNetworkKnowsItsPositions) {
  PatchEmbedding patches(
      PatchEmbeddingOptions{.in_channels = 1, .patch_size = 2, .positions = {.dim = 8, .base_size = 4}, .max_size = 5});
  init_weights(*patches, make_torch_generator(0));
  EXPECT_TRUE(at::equal(patches->pos_embed[0], sin_cos_positions(5, 5, {.dim = 8, .base_size = 4})));
}

TEST(Patches, JoinIntoThePictureTheyWereCutFrom) {
  const at::Tensor latents = draw({2, 3, 4, 6}, 3);
  const at::Tensor tokens = latents.view({2, 3, 2, 2, 3, 2}).permute({0, 2, 4, 3, 5, 1}).reshape({2, 6, 12});
  EXPECT_TRUE(at::equal(join_patches(tokens, 2, 3, 2), latents));
}

TEST(AdaLayerNormZero, ZeroWeightsAreAPlainNormWithClosedGates) {
  AdaLayerNormZero norm(8, /*num_branches=*/3);
  norm->linear->weight.set_data(at::zeros({72, 8}));
  norm->linear->bias.set_data(at::zeros({72}));
  const at::Tensor states = draw({2, 5, 8}, 4);
  const auto modulations = norm->forward(draw({2, 8}, 5));
  ASSERT_EQ(modulations.size(), 3u);
  for (const Modulation& modulation : modulations) {
    EXPECT_TRUE(at::equal(modulation.apply(plain_layer_norm(states)), plain_layer_norm(states)));
    EXPECT_TRUE(at::equal(modulation.add_gated(states, draw({2, 5, 8}, 6)), states));
  }
}

TEST(JointAttention, TurnsQueriesAndKeysOfAllTokensTheContextFirst) {
  const at::NoGradGuard no_grad;
  for (const bool has_qk_norm : {false, true}) {
    JointAttention attention(JointAttentionOptions{.dim = 8,
                                                   .num_heads = 2,
                                                   .head_dim = 4,
                                                   .has_context = true,
                                                   .has_context_output = false,
                                                   .has_output = false,
                                                   .has_qk_norm = has_qk_norm});
    init_weights(*attention, make_torch_generator(0));
    const at::Tensor states = draw({1, 3, 8}, 7), context = draw({1, 2, 8}, 8);
    const auto layers = attention->named_children();
    const auto heads_of = [&](const char* projection, const char* norm, const at::Tensor& input) {
      const at::Tensor projected = layers[projection]->as<LinearImpl>()->forward(input);
      const at::Tensor heads = projected.view({1, input.size(1), 2, 4}).transpose(1, 2);
      if (!has_qk_norm || norm == nullptr) return heads;
      auto* rms_norm = layers[norm]->as<RMSNormImpl>();
      rms_norm->weight.copy_(draw({4}, 9 + projection[0]));
      return rms_norm->forward(heads);
    };
    const RotaryEmbedding rotary = rotary_embedding(at::arange(1, 6).unsqueeze(1), {4});
    const at::Tensor query =
        at::cat({heads_of("add_q_proj", "norm_added_q", context), heads_of("to_q", "norm_q", states)}, 2);
    const at::Tensor key =
        at::cat({heads_of("add_k_proj", "norm_added_k", context), heads_of("to_k", "norm_k", states)}, 2);
    const at::Tensor value = at::cat({heads_of("add_v_proj", nullptr, context), heads_of("to_v", nullptr, states)}, 2);
    const at::Tensor mixed =
        at::scaled_dot_product_attention(apply_rotary(query, rotary), apply_rotary(key, rotary), value)
            .transpose(1, 2)
            .flatten(2);
    const JointStates found = attention->forward(states, context, rotary);
    EXPECT_TRUE(near(found.context, mixed.narrow(1, 0, 2), 1e-5)) << has_qk_norm;
    EXPECT_TRUE(near(found.hidden_states, mixed.narrow(1, 2, 3), 1e-5)) << has_qk_norm;
  }
}

// Heads of an odd width have no pairs to turn, but a norm.
TEST(JointAttention, NormalisesHeadsOfAnOddWidth) {
  const at::NoGradGuard no_grad;
  JointAttention attention(
      JointAttentionOptions{.dim = 6, .num_heads = 2, .head_dim = 3, .has_output = false, .has_qk_norm = true});
  init_weights(*attention, make_torch_generator(0));
  const at::Tensor states = draw({1, 4, 6}, 7);
  const auto layers = attention->named_children();
  const auto heads_of = [&](const char* projection) {
    return layers[projection]->as<LinearImpl>()->forward(states).view({1, 4, 2, 3}).transpose(1, 2);
  };
  const at::Tensor mixed = at::scaled_dot_product_attention(
      at::rms_norm(heads_of("to_q"), {3}, {}, 1e-6), at::rms_norm(heads_of("to_k"), {3}, {}, 1e-6), heads_of("to_v"));
  EXPECT_TRUE(near(attention->forward(states).hidden_states, mixed.transpose(1, 2).flatten(2), 1e-5));
}

}  // namespace
}  // namespace prefusion::nn

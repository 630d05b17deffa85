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

TEST(JointAttention, TransformSeesTheContextFirst) {
  JointAttention attention(JointAttentionOptions{.dim = 8, .num_heads = 2, .head_dim = 4, .has_context = true});
  init_weights(*attention, make_torch_generator(0));
  const at::Tensor states = draw({1, 3, 8}, 7), context = draw({1, 2, 8}, 8);
  std::vector<at::Tensor> seen;
  const JointStates found = attention->forward(states, context, [&](const at::Tensor& heads) {
    seen.push_back(heads);
    return heads;
  });
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].sizes(), at::IntArrayRef({1, 2, 5, 4}));
  const at::Tensor context_query = attention->named_children()["add_q_proj"]->as<LinearImpl>()->forward(context);
  EXPECT_TRUE(near(seen[0].narrow(2, 0, 2), context_query.view({1, 2, 2, 4}).transpose(1, 2), 1e-6));
  EXPECT_EQ(found.hidden_states.sizes(), states.sizes());
  EXPECT_EQ(found.context.sizes(), context.sizes());
}

}  // namespace
}  // namespace prefusion::nn

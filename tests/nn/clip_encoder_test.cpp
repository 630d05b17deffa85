#include "nn/clip_encoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <array>

#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

using tests::near;

std::shared_ptr<ClipEncoderImpl> make_encoder(int64_t dim, int64_t heads, int64_t num_layers) {
  auto encoder =
      std::make_shared<ClipEncoderImpl>(ClipEncoderOptions{.hidden_size = dim,
                                                           .intermediate_size = 3 * dim + 1,
                                                           .num_layers = num_layers,
                                                           .num_heads = heads,
                                                           .activation = activation_by_name("gelu", "test")});
  at::manual_seed(7);
  const c10::NoGradGuard no_gradients;
  for (auto& parameter : encoder->parameters()) parameter.normal_(0, parameter.dim() > 1 ? 0.3 : 0.5);
  return encoder;
}

TEST(ClipEncoder, FirstTokenWithoutGradientsIsThatOfTheWholePass) {
  for (const auto& [dim, heads, num_layers] : {std::array<int64_t, 3>{16, 4, 3}, {21, 3, 1}, {40, 1, 2}, {8, 8, 2}}) {
    SCOPED_TRACE(dim);
    const auto encoder = make_encoder(dim, heads, num_layers);
    for (const int64_t tokens : {1, 2, 17}) {
      const at::Tensor states = at::randn({3, tokens, dim});
      const at::Tensor given = states.clone();
      const at::Tensor expected = encoder->forward(states).select(1, 0).detach();
      const c10::NoGradGuard no_gradients;
      EXPECT_TRUE(near(encoder->forward_first_token(states), expected, 2e-5)) << tokens;
      EXPECT_TRUE(at::equal(states, given));
    }
  }
}

TEST(ClipEncoder, FirstTokenHasGradients) {
  const auto encoder = make_encoder(16, 4, 2);
  const at::Tensor states = at::randn({2, 5, 16}).requires_grad_(true);
  encoder->forward_first_token(states).sum().backward();
  EXPECT_GT(states.grad().abs().max().item<double>(), 0);
}

TEST(ClipEncoder, FirstTokenOfNoLayersIsTheInputs) {
  const auto encoder = make_encoder(16, 4, 0);
  const c10::NoGradGuard no_gradients;
  const at::Tensor states = at::randn({2, 5, 16});
  EXPECT_TRUE(at::equal(encoder->forward_first_token(states), states.select(1, 0)));
}

TEST(ClipEncoder, FirstTokenSeesLowRankBranches) {
  const auto encoder = make_encoder(16, 4, 1);
  for (const auto& item : encoder->named_modules()) {
    auto* target = dynamic_cast<LoraTarget*>(item.value().get());
    if (target && item.key().ends_with("fc1")) {
      target->lora_branches().push_back({.A = at::randn({2, 16}), .B = at::randn({49, 2})});
    }
  }
  const at::Tensor states = at::randn({2, 5, 16});
  const at::Tensor expected = encoder->forward(states).select(1, 0).detach();
  const c10::NoGradGuard no_gradients;
  EXPECT_TRUE(near(encoder->forward_first_token(states), expected, 1e-5));
}

}  // namespace
}  // namespace prefusion::nn

#include "losses/online/longalign.h"

#include <gtest/gtest.h>

#include "tests/losses/online/make_trajectories.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

at::Tensor unit_rows(uint64_t item) {
  const at::Tensor x =
      philox_randn({4, 6}, {.seed = 5, .item = item}, RandomPurpose::kOther).to(at::kDouble) + (item == 0 ? 0.8 : 0.0);
  return x / x.norm(2, 1, /*keepdim=*/true);
}

TEST(LongAlign, KeepsAShareOfTheScoreAlongTheCommonDirection) {
  const at::Tensor text = unit_rows(0), image = unit_rows(1);
  const at::Tensor direction = common_direction(text);
  EXPECT_NEAR(direction.norm().item<double>(), 1, 1e-12);
  const at::Tensor plain = (text * image).sum(1);
  EXPECT_TRUE(near(decomposed_score(text, image, direction, 1), plain, 1e-12));
  for (int64_t i = 0; i < 4; ++i) {
    const double along = (text[i] * direction).sum().item<double>() * (direction * image[i]).sum().item<double>();
    EXPECT_NEAR(decomposed_score(text, image, direction, 0.3)[i].item<double>(), plain[i].item<double>() - 0.7 * along,
                1e-12);
  }
}

TEST(LongAlign, OfWeightZeroIgnoresPicturesThatSuitAllPrompts) {
  const at::Tensor text = unit_rows(0);
  const at::Tensor direction = common_direction(text);
  const at::Tensor image = direction.unsqueeze(0).expand({4, 6});
  EXPECT_LT(decomposed_score(text, image, direction, 0).abs().max().item<double>(), 1e-12);
}

TEST(LongAlign, GradientsReachThePictureOnly) {
  const at::Tensor text = unit_rows(0).requires_grad_(), image = unit_rows(1).requires_grad_();
  const at::Tensor direction = common_direction(text);
  const at::Tensor loss = longalign_loss(decomposed_score(text, image, direction, 0.3), online_params("longalign"));
  loss.mean().backward();
  EXPECT_FALSE(text.grad().defined());
  const at::Tensor own = text.detach();
  const at::Tensor kept = own - 0.7 * (own * direction).sum(1, true) * direction;
  EXPECT_TRUE(near(image.grad(), -kept / 8, 1e-12));
}

TEST(LongAlign, LossIsHalfTheMissingScoreWithAnOffset) {
  const at::Tensor score = at::tensor({0.2, -0.5}, at::kDouble);
  EXPECT_TRUE(near(longalign_loss(score, online_params("longalign")),
                   at::tensor({0.4 - 0.063, 0.75 - 0.063}, at::kDouble), 1e-12));
  EXPECT_TRUE(
      near(longalign_loss(score, online_params("longalign", "weight=1")), at::tensor({0.4, 0.75}, at::kDouble), 1e-12));
}

TEST(LongAlign, StaysFiniteForTextsWithoutACommonDirection) {
  const at::Tensor text = at::tensor({1.0, 0.0, -1.0, 0.0}, at::kDouble).view({2, 2});
  EXPECT_TRUE(decomposed_score(text, text, common_direction(text), 0).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace prefusion::losses

#include "shapes/soft_features.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"
#include "shapes/scene.h"
#include "shapes/taste.h"
#include "tests/support/tensor_near.h"

namespace prefusion::shapes {
namespace {

using tests::near;

constexpr int64_t kLightness = 6, kCleanness = 7;

at::Tensor features_of(const Scene& scene) {
  return soft_features(render_batch(std::span(&scene, 1)))[0];
}

double cosine(const at::Tensor& a, const at::Tensor& b) {
  return ((a * b).sum() / (a.norm() * b.norm())).item<double>();
}

TEST(SoftFeatures, OfDrawnScenesHaveTheirColours) {
  CounterRng rng({.seed = 3}, RandomPurpose::kScene);
  int best = 0;
  for (int i = 0; i < 60; ++i) {
    const Scene scene = sample_scene(rng);
    const at::Tensor features = features_of(scene);
    EXPECT_TRUE(((features >= 0) & (features <= 1)).all().item<bool>());
    const at::Tensor wanted = wanted_features(*parse_caption(caption(scene)));
    for (int64_t colour = 0; colour < kLightness; ++colour) {
      if (wanted[colour].item<float>() == 0) continue;
      EXPECT_GT(features[colour].item<float>(), 0.3) << caption(scene);
    }
    // Of all captions of one object the right one suits best, but for stray blobs.
    double own = 0, others = 0;
    for (const ParsedCaption& other : one_object_captions()) {
      const double similarity = cosine(features, wanted_features(other));
      const bool is_own = other.objects[0].colour == scene.objects[0].colour ||
                          (scene.objects.size() > 1 && other.objects[0].colour == scene.objects[1].colour);
      (is_own ? own : others) = std::max(is_own ? own : others, similarity);
    }
    best += own > others ? 1 : 0;
  }
  EXPECT_GE(best, 57);
}

TEST(SoftFeatures, RiseWithTasteButDoNotSeeShapes) {
  Scene scene{.objects = {{.colour = Colour::kBlue}}, .background = 180};
  const at::Tensor dark = features_of(scene);
  scene.background = 240;
  const at::Tensor light = features_of(scene);
  EXPECT_NEAR(light[kLightness].item<double>(), std::pow(240 / 255.0, 2), 0.01);
  EXPECT_GT(light[kLightness].item<double>(), dark[kLightness].item<double>() + 0.2);
  scene.blur_passes = 3;
  const at::Tensor blurred = features_of(scene);
  EXPECT_LT(blurred[kCleanness].item<double>(), light[kCleanness].item<double>() - 0.05);
  EXPECT_TRUE(
      at::equal(wanted_features(*parse_caption("a blue circle")), wanted_features(*parse_caption("a blue triangle"))));
}

TEST(SoftFeatures, HaveTheGradientOfFiniteDifferences) {
  CounterRng rng({.seed = 5}, RandomPurpose::kScene);
  const std::vector<Scene> scenes = {sample_scene(rng), sample_scene(rng)};
  at::Tensor pixels = (0.9 * render_batch(scenes).to(at::kDouble)).requires_grad_();
  const at::Tensor weights = philox_randn({2, kNumSoftFeatures}, {.seed = 1}, RandomPurpose::kOther).to(at::kDouble);
  const auto value = [&](const at::Tensor& x) { return (soft_features(x) * weights).sum(); };
  value(pixels).backward();
  const at::NoGradGuard no_grad;
  for (uint64_t i = 0; i < 4; ++i) {
    const at::Tensor direction =
        philox_randn(pixels.sizes(), {.seed = 2, .item = i}, RandomPurpose::kOther).to(at::kDouble);
    const double step = 1e-6;
    const double change =
        (value(pixels + step * direction) - value(pixels - step * direction)).item<double>() / (2 * step);
    const double expected = (pixels.grad() * direction).sum().item<double>();
    EXPECT_NEAR(change, expected, 1e-5 * std::abs(expected) + 1e-9);
    EXPECT_NE(expected, 0);
  }
}

TEST(SoftFeatures, StayFiniteForPicturesWithoutObjectsOrBackground) {
  at::Tensor pixels = at::stack({at::zeros({3, 16, 16}), at::ones({3, 16, 16}), at::ones({3, 16, 16})});
  pixels[2].slice(0, 1).fill_(-1);  // red everywhere
  pixels.requires_grad_();
  const at::Tensor features = soft_features(pixels);
  features.sum().backward();
  EXPECT_TRUE(features.isfinite().all().item<bool>());
  EXPECT_TRUE(pixels.grad().isfinite().all().item<bool>());
  EXPECT_GT(features[2][0].item<float>(), 0.9);
}

TEST(SoftFeatures, RefuseOtherShapes) {
  EXPECT_THROW(soft_features(at::zeros({3, 16, 16})), Error);
  EXPECT_THROW(soft_features(at::zeros({1, 4, 16, 16})), Error);
  EXPECT_THROW(soft_features(at::zeros({1, 3, 16, 16}, at::kByte)), Error);
}

}  // namespace
}  // namespace prefusion::shapes

#include "shapes/taste.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <iostream>

#include "core/error.h"
#include "shapes/scene.h"
#include "tests/shapes/perturb.h"

namespace prefusion::shapes {
namespace {

Scene random_scene(uint64_t item) {
  CounterRng rng(DrawKey{37, item, 0}, RandomPurpose::kScene);
  return sample_scene(rng);
}

Scene plain_scene(uint64_t item) {
  Scene scene = random_scene(item);
  scene.blobs.clear();
  scene.blur_passes = 0;
  return scene;
}

TEST(ShapesTaste, ScoreIsTheWeightedSumOfItsParts) {
  EXPECT_DOUBLE_EQ(taste_score(255, 1, 0), 1);
  EXPECT_DOUBLE_EQ(taste_score(0, 0, 0), 0.2);
  EXPECT_DOUBLE_EQ(taste_score(127.5, 0.5, 1), 0.125 + 0.15 + 0.1);
  EXPECT_GT(taste_score(200, 0.5, 3), taste_score(200, 0.5, 4));
  EXPECT_GT(taste_score(201, 0.5, 3), taste_score(200, 0.5, 3));
}

TEST(ShapesTaste, MeasuresTheBackgroundAwayFromObjects) {
  for (uint64_t item = 0; item < 200; ++item) {
    const Scene scene = random_scene(item);
    EXPECT_NEAR(taste(render(scene)).background, scene.background, scene.blobs.empty() ? 0.5 : 4) << item;
  }
}

TEST(ShapesTaste, CountsBlobs) {
  int right = 0;
  for (uint64_t item = 0; item < 1000; ++item) {
    const Scene scene = random_scene(item);
    right += taste(render(scene)).stray_blobs == static_cast<int>(scene.blobs.size()) ? 1 : 0;
  }
  std::cout << "[ accuracy ] blobs counted: " << right << " of 1000\n";
  EXPECT_GE(right, 990);
}

TEST(ShapesTaste, SeesNoBlobsInFaintNoise) {
  int clean = 0;
  for (uint64_t item = 0; item < 300; ++item) {
    clean += taste(perturb(render(plain_scene(item)), 0, 6, item)).stray_blobs == 0 ? 1 : 0;
  }
  EXPECT_GE(clean, 297);
}

TEST(ShapesTaste, PrefersLighterBackgrounds) {
  for (uint64_t item = 0; item < 40; ++item) {
    Scene scene = plain_scene(item);
    double previous = 0;
    for (const int background : {150, 160, 175, 200, 230, 250}) {
      scene.background = background;
      const double score = taste(render(scene)).score;
      EXPECT_GT(score, previous) << caption(scene) << " on " << background;
      previous = score;
    }
  }
}

TEST(ShapesTaste, PrefersSharperEdges) {
  for (uint64_t item = 0; item < 40; ++item) {
    Scene scene = plain_scene(item);
    double previous = 2;
    for (const int passes : {0, 1, 2, 3, 5, 8}) {
      scene.blur_passes = passes;
      const Taste measured = taste(render(scene));
      EXPECT_LT(measured.score, previous) << caption(scene) << " after " << passes;
      EXPECT_EQ(measured.stray_blobs, 0);
      previous = measured.score;
    }
  }
}

TEST(ShapesTaste, DrawnEdgesAreClean) {
  for (uint64_t item = 0; item < 200; ++item) {
    EXPECT_GE(taste(render(plain_scene(item))).edge_cleanliness, 0.9) << caption(plain_scene(item));
  }
}

TEST(ShapesTaste, RaggedEdgesAreNotClean) {
  for (const Shape shape : kShapes) {
    const at::Tensor picture = render({.objects = {{.shape = shape, .radius = 14}}, .background = 220});
    at::Tensor ragged = picture.clone();
    CounterRng rng(DrawKey{41, 0, 0}, RandomPurpose::kOther);
    for (int64_t row = 0; row < kPictureSize; ++row) ragged[row].copy_(at::roll(picture[row], rng.below(5) - 2, 0));
    EXPECT_LT(taste(ragged).edge_cleanliness, taste(picture).edge_cleanliness - 0.15) << shape_word(shape);
  }
}

TEST(ShapesTaste, DislikesEveryBlobMore) {
  Scene scene{.objects = {{.radius = 10}}, .background = 210};
  double previous = taste(render(scene)).score;
  for (const double x : {8.0, 20.0, 32.0, 44.0, 56.0}) {
    scene.blobs.push_back({.x = x, .y = 8, .radius = 2, .colour = {120, 120, 120}});
    const Taste measured = taste(render(scene));
    EXPECT_EQ(measured.stray_blobs, static_cast<int>(scene.blobs.size()));
    EXPECT_LT(measured.score, previous);
    previous = measured.score;
  }
}

TEST(ShapesTaste, IsMuchTheSameInAnotherSize) {
  for (uint64_t item = 0; item < 100; ++item) {
    const at::Tensor picture = render(random_scene(item));
    EXPECT_NEAR(taste(resized(picture, 128, 128)).score, taste(picture).score, 0.05) << item;
  }
}

TEST(ShapesTaste, StaysInRangeOnPicturesWithoutObjects) {
  const Taste white = taste(at::full({64, 64, 3}, 255, at::kByte));
  EXPECT_DOUBLE_EQ(white.background, 255);
  EXPECT_EQ(white.edge_cleanliness, 0);
  EXPECT_NEAR(white.score, 0.7, 1e-9);
  const at::Tensor noise = philox_randn({64, 64, 3}, DrawKey{1, 2, 3}, RandomPurpose::kNoise);
  const Taste noisy = taste((noise * 80 + 128).clamp(0, 255).to(at::kByte));
  EXPECT_GE(noisy.score, 0);
  EXPECT_LT(noisy.score, 0.5);
  at::Tensor full = at::empty({64, 64, 3}, at::kByte);
  full.select(2, 0).fill_(225);
  full.narrow(2, 1, 2).fill_(35);
  EXPECT_TRUE(std::isfinite(taste(full).score));
}

TEST(ShapesTaste, RefusesOtherTensors) {
  EXPECT_THROW(taste(at::zeros({3, 64, 64}, at::kByte)), Error);
  EXPECT_THROW(taste(at::zeros({64, 64, 3})), Error);
}

}  // namespace
}  // namespace prefusion::shapes

#include "shapes/checker.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <iostream>

#include "core/error.h"
#include "shapes/scene.h"
#include "tests/shapes/perturb.h"

namespace prefusion::shapes {
namespace {

Scene random_scene(uint64_t item) {
  CounterRng rng(DrawKey{29, item, 0}, RandomPurpose::kScene);
  return sample_scene(rng);
}

// The share of `count` scenes whose picture, changed by `change`, still satisfies its caption; printed for the records.
double accuracy(const char* name, int count, const std::function<at::Tensor(const at::Tensor&, uint64_t)>& change) {
  int correct = 0;
  for (int i = 0; i < count; ++i) {
    const auto item = static_cast<uint64_t>(i);
    const Scene scene = random_scene(item);
    const CheckResult result = check(change(render(scene), item), caption(scene));
    correct += result.correct ? 1 : 0;
    if (!result.correct) std::cout << name << ", " << caption(scene) << ": " << result.reason << '\n';
  }
  const double share = static_cast<double>(correct) / count;
  std::cout << "[ accuracy ] " << name << ": " << correct << " of " << count << '\n';
  testing::Test::RecordProperty(name, std::to_string(share));
  return share;
}

TEST(ShapesChecker, AcceptsTruePictures) {
  EXPECT_GE(accuracy("true pictures", 3000, [](const at::Tensor& p, uint64_t) { return p; }), 0.995);
}

TEST(ShapesChecker, AcceptsNoisyBlurredPictures) {
  const auto change = [](const at::Tensor& p, uint64_t item) { return perturb(p, 0.6, 6, item); };
  EXPECT_GE(accuracy("blur 0.6 px and noise 6", 2000, change), 0.98);
}

TEST(ShapesChecker, AcceptsPicturesOfHalfTheDetail) {
  const auto change = [](const at::Tensor& p, uint64_t) { return resized(resized(p, 32, 32), 64, 64); };
  EXPECT_GE(accuracy("reduced to 32x32 and back", 1000, change), 0.98);
}

TEST(ShapesChecker, AcceptsOtherSizes) {
  for (const int size : {48, 96, 128, 200, 512}) {
    const auto change = [size](const at::Tensor& p, uint64_t) { return resized(p, size, size); };
    const std::string name = "size " + std::to_string(size);
    EXPECT_GE(accuracy(name.c_str(), 200, change), 0.98);
  }
}

TEST(ShapesChecker, MeasuresOblongPicturesByTheirLongerSide) {
  const Scene scene{.objects = {{.colour = Colour::kCyan, .shape = Shape::kSquare, .x = 20, .y = 16, .radius = 10}}};
  const std::vector<DetectedObject> found = detect_objects(render(scene).narrow(0, 0, 40));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].colour, Colour::kCyan);
  EXPECT_EQ(found[0].shape, Shape::kSquare);
  EXPECT_NEAR(found[0].x, 20, 0.5);
  EXPECT_NEAR(found[0].y, 16, 0.5);
}

TEST(ShapesChecker, FindsCentresAndAreas) {
  for (uint64_t item = 0; item < 300; ++item) {
    const Scene scene = random_scene(item);
    const std::vector<DetectedObject> found = detect_objects(render(scene));
    ASSERT_EQ(found.size(), scene.objects.size()) << caption(scene);
    for (const SceneObject& object : scene.objects) {
      const bool is_found = std::any_of(found.begin(), found.end(), [&object](const DetectedObject& seen) {
        return seen.colour == object.colour && seen.shape == object.shape && std::abs(seen.x - object.x) < 1 &&
               std::abs(seen.y - object.y) < 1 && seen.area > object.radius * object.radius * 1.7;
      });
      EXPECT_TRUE(is_found) << caption(scene);
    }
  }
}

template <typename T, size_t N>
T another(const std::array<T, N>& values, T value, CounterRng& rng) {
  T other = value;
  while (other == value) other = values[static_cast<size_t>(rng.below(N))];
  return other;
}

// A changed scene never has the caption of the true one, so that the checker must refuse it.
double rejection(const char* name, const std::function<bool(Scene&, CounterRng&)>& damage) {
  int tried = 0, refused = 0;
  for (uint64_t item = 0; item < 1500; ++item) {
    Scene scene = random_scene(item);
    const std::string truth = caption(scene);
    CounterRng rng(DrawKey{31, item, 0}, RandomPurpose::kOther);
    if (!damage(scene, rng)) continue;
    ++tried;
    const bool is_correct = check(render(scene), truth).correct;
    refused += is_correct ? 0 : 1;
    if (is_correct) std::cout << name << " accepted: " << truth << '\n';
  }
  std::cout << "[ accuracy ] " << name << " refused: " << refused << " of " << tried << '\n';
  return static_cast<double>(refused) / tried;
}

TEST(ShapesChecker, RefusesAnotherColour) {
  EXPECT_GE(rejection("another colour",
                      [](Scene& scene, CounterRng& rng) {
                        Colour& colour = scene.objects.back().colour;
                        colour = another(kColours, colour, rng);
                        return true;
                      }),
            0.995);
}

TEST(ShapesChecker, RefusesAnotherShape) {
  EXPECT_GE(rejection("another shape",
                      [](Scene& scene, CounterRng& rng) {
                        Shape& shape = scene.objects.back().shape;
                        shape = another(kShapes, shape, rng);
                        return true;
                      }),
            0.995);
}

TEST(ShapesChecker, RefusesSwappedColours) {
  EXPECT_GE(rejection("swapped colours",
                      [](Scene& scene, CounterRng&) {
                        if (scene.objects.size() < 2) return false;
                        std::swap(scene.objects[0].colour, scene.objects[1].colour);
                        return scene.objects[0].colour != scene.objects[1].colour;
                      }),
            0.995);
}

TEST(ShapesChecker, RefusesAMissingObject) {
  EXPECT_GE(
      rejection("a missing object",
                [](Scene& scene, CounterRng& rng) {
                  scene.objects.erase(scene.objects.begin() + rng.below(static_cast<int64_t>(scene.objects.size())));
                  return true;
                }),
      0.995);
}

TEST(ShapesChecker, RefusesAnExtraObject) {
  EXPECT_GE(rejection("an extra object",
                      [](Scene& scene, CounterRng& rng) {
                        SceneObject extra = scene.objects[0];
                        extra.radius = 7;
                        extra.colour = another(kColours, extra.colour, rng);
                        extra.x = extra.x > 32 ? 10 : 54;  // on the other side, clear of a single object of 16 px
                        extra.y = extra.y > 32 ? 12 : 52;
                        const bool is_single = scene.objects.size() == 1;
                        scene.objects.push_back(extra);
                        return is_single;
                      }),
            0.995);
}

TEST(ShapesChecker, RefusesAThirdObject) {
  Scene scene{.objects = {{.colour = Colour::kRed, .shape = Shape::kCircle, .x = 12, .y = 12, .radius = 8},
                          {.colour = Colour::kBlue, .shape = Shape::kSquare, .x = 50, .y = 12, .radius = 8}},
              .relation = Relation::kLeftOf};
  const std::string truth = caption(scene);
  EXPECT_TRUE(check(render(scene), truth).correct);
  for (const Colour colour : kColours) {
    Scene crowded = scene;
    crowded.objects.push_back({.colour = colour, .shape = Shape::kTriangle, .x = 32, .y = 50, .radius = 7});
    const CheckResult result = check(render(crowded), truth);
    EXPECT_FALSE(result.correct);
    EXPECT_EQ(result.found.size(), 3u);
    EXPECT_NE(result.reason.find("found 3"), std::string::npos) << result.reason;
  }
}

TEST(ShapesChecker, RefusesEveryOtherRelation) {
  for (const Relation wrong : kRelations) {
    const double share = rejection("another relation", [wrong](Scene& scene, CounterRng& rng) {
      if (scene.objects.size() < 2 || scene.relation == wrong) return false;
      const ParsedCaption moved{
          {{scene.objects[0].colour, scene.objects[0].shape}, {scene.objects[1].colour, scene.objects[1].shape}},
          wrong};
      scene = scene_for_caption(moved, rng);
      return true;
    });
    EXPECT_GE(share, 0.995) << relation_words(wrong);
  }
}

TEST(ShapesChecker, TakesTwoLikeObjectsInEitherOrder) {
  Scene scene{
      .objects = {{.colour = Colour::kRed, .x = 14, .radius = 8}, {.colour = Colour::kRed, .x = 50, .radius = 8}}};
  const at::Tensor picture = render(scene);
  EXPECT_TRUE(check(picture, "a red circle left of a red circle").correct);
  EXPECT_TRUE(check(picture, "a red circle right of a red circle").correct);
  EXPECT_FALSE(check(picture, "a red circle above a red circle").correct);
}

TEST(ShapesChecker, AcceptsTheMirroredCaption) {
  const Scene scene{.objects = {{.colour = Colour::kRed, .shape = Shape::kCircle, .x = 14, .radius = 8},
                                {.colour = Colour::kBlue, .shape = Shape::kSquare, .x = 50, .radius = 8}}};
  const at::Tensor picture = render(scene);
  EXPECT_TRUE(check(picture, "a red circle left of a blue square").correct);
  EXPECT_TRUE(check(picture, "a blue square right of a red circle").correct);
  EXPECT_FALSE(check(picture, "a blue square left of a red circle").correct);
}

TEST(ShapesChecker, RefusesObjectsOfTwoColours) {
  at::Tensor picture = render({.objects = {{.colour = Colour::kRed, .radius = 14}}});
  at::Tensor blue_half = render({.objects = {{.colour = Colour::kBlue, .radius = 14}}});
  picture.narrow(1, 32, 32).copy_(blue_half.narrow(1, 32, 32));
  EXPECT_FALSE(check(picture, "a red circle").correct);
  EXPECT_FALSE(check(picture, "a blue circle").correct);
}

TEST(ShapesChecker, NamesAShapeThatIsNoneOfTheThree) {
  at::Tensor picture = render({.objects = {{.colour = Colour::kRed, .shape = Shape::kSquare, .radius = 16}}});
  picture.narrow(0, 18, 15).narrow(1, 32, 15).fill_(230);  // an L
  const CheckResult result = check(picture, "a red square");
  EXPECT_FALSE(result.correct);
  ASSERT_EQ(result.found.size(), 1u);
  EXPECT_FALSE(result.found[0].shape.has_value());
  EXPECT_NE(result.reason.find("unclear shape"), std::string::npos) << result.reason;
}

TEST(ShapesChecker, RefusesEllipsesAndOblongs) {
  for (const Shape shape : {Shape::kCircle, Shape::kSquare}) {
    const at::Tensor picture = render({.objects = {{.colour = Colour::kRed, .shape = shape, .radius = 14}}});
    const at::Tensor stretched = resized(resized(picture, 64, 104).narrow(1, 20, 64), 64, 64);
    const CheckResult result = check(stretched, shape == Shape::kCircle ? "a red circle" : "a red square");
    EXPECT_FALSE(result.correct);
    ASSERT_EQ(result.found.size(), 1u);
    EXPECT_FALSE(result.found[0].shape.has_value());
  }
}

TEST(ShapesChecker, FindsNothingInFlatPictures) {
  for (const int grey : {0, 128, 255}) {
    const CheckResult result = check(at::full({64, 64, 3}, grey, at::kByte), "a red circle");
    EXPECT_FALSE(result.correct);
    EXPECT_TRUE(result.found.empty());
  }
}

TEST(ShapesChecker, IgnoresBlobs) {
  Scene scene{.objects = {{.colour = Colour::kGreen, .radius = 12}}};
  scene.blobs = {{.x = 6, .y = 6, .radius = 2.9, .colour = colour_rgb(Colour::kRed)}};
  EXPECT_TRUE(check(render(scene), "a green circle").correct);
  EXPECT_EQ(detect_objects(render(scene)).size(), 1u);
}

TEST(ShapesChecker, RefusesOtherTensorsAndCaptions) {
  const at::Tensor picture = render({.objects = {{}}});
  EXPECT_THROW(check(picture.to(at::kFloat), "a red circle"), Error);
  EXPECT_THROW(check(picture.permute({2, 0, 1}), "a red circle"), Error);
  EXPECT_THROW(check(picture.narrow(0, 0, 8), "a red circle"), Error);
  EXPECT_THROW(check(picture.unsqueeze(0), "a red circle"), Error);
  EXPECT_THROW(check(at::Tensor(), "a red circle"), Error);
  EXPECT_THROW(check(picture, "a photo of a cat"), Error);
}

TEST(ShapesChecker, ReadsStridedPictures) {
  const at::Tensor picture = render({.objects = {{}}});
  const at::Tensor strided = picture.permute({2, 0, 1}).contiguous().permute({1, 2, 0});
  EXPECT_TRUE(check(strided, "a red circle").correct);
}

}  // namespace
}  // namespace prefusion::shapes

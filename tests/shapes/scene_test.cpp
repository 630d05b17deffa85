#include "shapes/scene.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "shapes/dataset.h"

namespace prefusion::shapes {
namespace {

Scene random_scene(uint64_t item) {
  CounterRng rng(DrawKey{11, item, 0}, RandomPurpose::kScene);
  return sample_scene(rng);
}

Rgb pixel(const at::Tensor& picture, int64_t y, int64_t x) {
  const uint8_t* data = picture.data_ptr<uint8_t>() + (y * kPictureSize + x) * 3;
  return {data[0], data[1], data[2]};
}

double coverage(const at::Tensor& picture, int background) {
  return at::ne(picture, background).any(2).sum().item<double>();
}

TEST(ShapesScene, ObjectsStayInsideThePictureAndApart) {
  for (uint64_t item = 0; item < 2000; ++item) {
    const Scene scene = random_scene(item);
    for (const SceneObject& object : scene.objects) {
      const Extent reach = extent(object.shape, object.radius);
      EXPECT_GE(object.x - reach.left, 1.99);
      EXPECT_GE(object.y - reach.up, 1.99);
      EXPECT_LE(object.x + reach.right, 62.01);
      EXPECT_LE(object.y + reach.down, 62.01);
      EXPECT_GE(object.radius, scene.objects.size() == 1 ? 9 : 7);
      EXPECT_LE(object.radius, scene.objects.size() == 1 ? 16 : 11);
    }
    if (scene.objects.size() == 1) continue;
    const SceneObject &first = scene.objects[0], &second = scene.objects[1];
    const double dx = second.x - first.x, dy = second.y - first.y;
    switch (scene.relation) {
      case Relation::kLeftOf: EXPECT_GT(dx, 1.99 * std::abs(dy)); break;
      case Relation::kRightOf: EXPECT_GT(-dx, 1.99 * std::abs(dy)); break;
      case Relation::kAbove: EXPECT_GT(dy, 1.99 * std::abs(dx)); break;
      case Relation::kBelow: EXPECT_GT(-dy, 1.99 * std::abs(dx)); break;
      case Relation::kNone: ADD_FAILURE() << "two objects without a relation";
    }
  }
}

TEST(ShapesScene, ShowsItsCaption) {
  CounterRng rng(DrawKey{1, 0, 0}, RandomPurpose::kScene);
  for (const char* text :
       {"a green triangle", "a red circle left of a blue square", "a cyan square below a red square"}) {
    EXPECT_EQ(caption(scene_for_caption(text, rng)), text);
  }
  EXPECT_THROW(scene_for_caption("a red dog", rng), Error);
}

TEST(ShapesScene, VariesInTasteWithoutSayingSo) {
  int with_blobs = 0, blurred = 0;
  double background = 0;
  int darkest = 255, lightest = 0;
  for (uint64_t item = 0; item < 2000; ++item) {
    const Scene scene = random_scene(item);
    with_blobs += scene.blobs.empty() ? 0 : 1;
    blurred += scene.blur_passes > 0 ? 1 : 0;
    background += scene.background / 2000.0;
    darkest = std::min(darkest, scene.background);
    lightest = std::max(lightest, scene.background);
    for (const Blob& blob : scene.blobs) EXPECT_LT(blob.radius, 3);
  }
  EXPECT_NEAR(with_blobs / 2000.0, 0.25, 0.04);
  EXPECT_NEAR(blurred / 2000.0, 0.25, 0.04);
  EXPECT_NEAR(background, 200, 3);
  EXPECT_EQ(darkest, 150);
  EXPECT_EQ(lightest, 250);
}

// Half side 8.86, so the square's edges are rounded to 23.25 and 40.75: the pixels 23 and 40 are covered by three
// quarters.
TEST(ShapesRender, AveragesCoverageAtTheEdge) {
  const Scene scene{.objects = {{.colour = Colour::kRed, .shape = Shape::kSquare, .x = 32, .y = 32, .radius = 10}},
                    .background = 201};
  const at::Tensor picture = render(scene);
  EXPECT_EQ(picture.sizes(), (at::IntArrayRef{64, 64, 3}));
  EXPECT_EQ(picture.scalar_type(), at::kByte);
  EXPECT_EQ(pixel(picture, 32, 22), (Rgb{201, 201, 201}));
  EXPECT_EQ(pixel(picture, 32, 32), (Rgb{225, 35, 35}));
  const Rgb edge{219, 77, 77};  // (12 * 225 + 4 * 201 + 8) / 16 and (12 * 35 + 4 * 201 + 8) / 16
  EXPECT_EQ(pixel(picture, 32, 23), edge);
  EXPECT_EQ(pixel(picture, 32, 40), edge);
  EXPECT_EQ(pixel(picture, 23, 32), edge);
  const Rgb corner{215, 108, 108};  // nine of sixteen cells
  EXPECT_EQ(pixel(picture, 23, 23), corner);
}

TEST(ShapesRender, DrawsTheAreasOfTheFigures) {
  for (const auto& [shape, area] :
       {std::pair{Shape::kCircle, 452.4}, {Shape::kSquare, 452.2}, {Shape::kTriangle, 340.9}}) {
    const Scene scene{.objects = {{.colour = Colour::kBlue, .shape = shape, .radius = 12}}, .background = 200};
    const at::Tensor red = render(scene).select(2, 0).to(at::kDouble);  // 200 outside, 40 inside
    EXPECT_NEAR(at::sum((200 - red) / 160).item<double>(), area, 0.03 * area) << shape_word(shape);
  }
}

TEST(ShapesRender, PutsTheApexOfATriangleOnTop) {
  const Scene scene{.objects = {{.colour = Colour::kGreen, .shape = Shape::kTriangle, .radius = 12}}};
  const at::Tensor picture = render(scene);
  EXPECT_EQ(pixel(picture, 18, 32), colour_rgb(Colour::kGreen));
  EXPECT_EQ(pixel(picture, 39, 20), colour_rgb(Colour::kGreen));
  EXPECT_EQ(pixel(picture, 18, 24), (Rgb{230, 230, 230}));
  EXPECT_EQ(pixel(picture, 41, 32), (Rgb{230, 230, 230}));
}

TEST(ShapesRender, BlurWidensAndBlobsAdd) {
  Scene scene{.objects = {{.radius = 10}}, .background = 220};
  const double plain = coverage(render(scene), 220);
  scene.blur_passes = 2;
  EXPECT_GT(coverage(render(scene), 220), plain + 50);
  scene.blur_passes = 0;
  scene.blobs = {{.x = 5, .y = 5, .radius = 2, .colour = {100, 100, 100}}};
  EXPECT_GT(coverage(render(scene), 220), plain + 10);
  EXPECT_EQ(pixel(render(scene), 5, 5), (Rgb{100, 100, 100}));
}

TEST(ShapesRender, BatchIsTheModelsRange) {
  const std::vector<Scene> scenes{random_scene(0), random_scene(1)};
  const at::Tensor batch = render_batch(scenes);
  EXPECT_EQ(batch.sizes(), (at::IntArrayRef{2, 3, 64, 64}));
  const at::Tensor back = batch[1].permute({1, 2, 0}).add(1).mul(127.5).round().to(at::kByte);
  EXPECT_TRUE(at::equal(back, render(scenes[1])));
  EXPECT_LE(batch.abs().max().item<float>(), 1.0f);
}

TEST(ShapesDataset, DependsOnSeedStepAndItemAlone) {
  const SceneBatch batch = scene_batch(3, 17, 8);
  EXPECT_EQ(batch.pixel_values.sizes(), (at::IntArrayRef{8, 3, 64, 64}));
  EXPECT_EQ(batch.captions.size(), 8u);
  const SceneBatch shorter = scene_batch(3, 17, 3);
  EXPECT_TRUE(at::equal(shorter.pixel_values, batch.pixel_values.narrow(0, 0, 3)));
  EXPECT_TRUE(std::equal(shorter.captions.begin(), shorter.captions.end(), batch.captions.begin()));
  EXPECT_NE(scene_batch(3, 18, 8).captions, batch.captions);
  EXPECT_NE(scene_batch(4, 17, 8).captions, batch.captions);
}

TEST(ShapesDataset, RefusesImpossibleRequests) {
  EXPECT_THROW(scene_batch(0, -1, 4), Error);
  EXPECT_THROW(scene_batch(0, 0, 0), Error);
}

}  // namespace
}  // namespace prefusion::shapes

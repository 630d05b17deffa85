#include "shapes/scene.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace prefusion::shapes {
namespace {

constexpr double kMargin = 2;           // px between an object and the picture's border
constexpr double kGap = 4;              // px between two objects, measured along the relation's axis
constexpr double kMaxCrossShare = 0.5;  // offset across the relation's axis over the one along it
constexpr double kBlobClearance = 6;    // px between a blob and an object, so that the blob is seen as one of its own
constexpr double kBlobShare = 0.25;
constexpr double kBlurShare = 0.25;

double between(CounterRng& rng, double low, double high) {
  return low + (high - low) * rng.uniform();
}

// The span of centres that keep an object of these reaches inside the picture.
double place(CounterRng& rng, double reach_before, double reach_after, double low, double high) {
  low = std::max(low, kMargin + reach_before);
  high = std::min(high, kPictureSize - kMargin - reach_after);
  return between(rng, low, high);
}

// Places `before` and `after` (left and right, or upper and lower) with a random gap along one axis.
void place_pair(CounterRng& rng, SceneObject& before, SceneObject& after, bool is_horizontal) {
  const Extent a = extent(before.shape, before.radius);
  const Extent b = extent(after.shape, after.radius);
  const double a_low = is_horizontal ? a.left : a.up, a_high = is_horizontal ? a.right : a.down;
  const double b_low = is_horizontal ? b.left : b.up, b_high = is_horizontal ? b.right : b.down;
  const double slack = kPictureSize - 2 * kMargin - kGap - a_low - a_high - b_low - b_high;
  const double extra_gap = between(rng, 0, slack);
  const double a_along = kMargin + a_low + between(rng, 0, slack - extra_gap);
  const double b_along = a_along + a_high + kGap + extra_gap + b_low;
  const double reach = kMaxCrossShare * (b_along - a_along);
  double& a_cross = is_horizontal ? before.y : before.x;
  double& b_cross = is_horizontal ? after.y : after.x;
  (is_horizontal ? before.x : before.y) = a_along;
  (is_horizontal ? after.x : after.y) = b_along;
  a_cross = place(rng, is_horizontal ? a.up : a.left, is_horizontal ? a.down : a.right, 0, kPictureSize);
  b_cross =
      place(rng, is_horizontal ? b.up : b.left, is_horizontal ? b.down : b.right, a_cross - reach, a_cross + reach);
}

uint8_t blob_channel(int background, int64_t contrast) {
  return static_cast<uint8_t>(std::max<int64_t>(0, background - contrast));
}

void add_blobs(CounterRng& rng, Scene& scene) {
  const int64_t count = 1 + rng.below(2);
  for (int tries = 0; tries < 40 && static_cast<int64_t>(scene.blobs.size()) < count; ++tries) {
    Blob blob;
    blob.radius = between(rng, 1.25, 2.75);
    blob.x = place(rng, blob.radius, blob.radius, 0, kPictureSize);
    blob.y = place(rng, blob.radius, blob.radius, 0, kPictureSize);
    const uint8_t grey = blob_channel(scene.background, 60 + rng.below(60));
    const Colour colour = kColours[static_cast<size_t>(rng.below(static_cast<int64_t>(kColours.size())))];
    blob.colour = rng.uniform() < 0.5 ? Rgb{grey, grey, grey} : colour_rgb(colour);
    const bool is_clear = std::all_of(scene.objects.begin(), scene.objects.end(), [&blob](const SceneObject& object) {
      const Extent reach = extent(object.shape, object.radius);
      const double dx = blob.x - object.x, dy = blob.y - object.y;
      const double clear = blob.radius + kBlobClearance;
      return dx < -reach.left - clear || dx > reach.right + clear || dy < -reach.up - clear || dy > reach.down + clear;
    });
    const bool is_apart = std::all_of(scene.blobs.begin(), scene.blobs.end(), [&blob](const Blob& other) {
      return std::abs(blob.x - other.x) + std::abs(blob.y - other.y) > 2 * kBlobClearance;
    });
    if (is_clear && is_apart) scene.blobs.push_back(blob);
  }
}

}  // namespace

Extent extent(Shape shape, double radius) {
  switch (shape) {
    case Shape::kCircle: return {radius, radius, radius, radius};
    case Shape::kSquare: return {0.886 * radius, 0.886 * radius, 0.886 * radius, 0.886 * radius};
    case Shape::kTriangle: return {1.169 * radius, 1.169 * radius, 1.35 * radius, 0.675 * radius};
  }
  return {};
}

std::string caption(const Scene& scene) {
  ParsedCaption parsed;
  for (const SceneObject& object : scene.objects) parsed.objects.push_back({object.colour, object.shape});
  parsed.relation = scene.relation;
  return caption_text(parsed);
}

Scene scene_for_caption(const ParsedCaption& parsed, CounterRng& rng) {
  const size_t count = parsed.objects.size();
  check_usage(count == 1 || count == 2, "a scene has one or two objects, got ", count);
  check_usage((count == 2) == (parsed.relation != Relation::kNone), "a relation joins two objects, got ", count);
  Scene scene;
  scene.relation = parsed.relation;
  scene.background = 150 + static_cast<int>(rng.below(101));
  for (const ObjectKind& kind : parsed.objects) {
    SceneObject object{.colour = kind.colour, .shape = kind.shape};
    object.radius = count == 1 ? between(rng, 9, 16) : between(rng, 7, 11);
    scene.objects.push_back(object);
  }
  if (count == 1) {
    SceneObject& object = scene.objects[0];
    const Extent reach = extent(object.shape, object.radius);
    object.x = place(rng, reach.left, reach.right, 0, kPictureSize);
    object.y = place(rng, reach.up, reach.down, 0, kPictureSize);
  } else {
    const bool first_is_before = parsed.relation == Relation::kLeftOf || parsed.relation == Relation::kAbove;
    const bool is_horizontal = parsed.relation == Relation::kLeftOf || parsed.relation == Relation::kRightOf;
    place_pair(rng, scene.objects[first_is_before ? 0 : 1], scene.objects[first_is_before ? 1 : 0], is_horizontal);
  }
  if (rng.uniform() < kBlobShare) add_blobs(rng, scene);
  if (rng.uniform() < kBlurShare) scene.blur_passes = 1 + static_cast<int>(rng.below(3));
  return scene;
}

Scene scene_for_caption(std::string_view caption, CounterRng& rng) {
  const std::optional<ParsedCaption> parsed = parse_caption(caption);
  check_usage(parsed.has_value(), "caption '", caption,
              "' is not one of the shapes world: expected \"a red circle\" or \"a red circle left of a blue square\"");
  return scene_for_caption(*parsed, rng);
}

Scene sample_scene(CounterRng& rng) {
  const ParsedCaption parsed = sample_caption(rng);
  return scene_for_caption(parsed, rng);
}

}  // namespace prefusion::shapes

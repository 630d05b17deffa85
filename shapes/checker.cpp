#include "shapes/checker.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "core/error.h"
#include "shapes/segmentation.h"

namespace prefusion::shapes {
namespace {

constexpr double kMinOffset = 4;       // px between centres along the relation's axis
constexpr double kMinSolidity = 0.85;  // area over the area of the convex hull: all three shapes are convex
// Area over the area of the enclosing figure, below which the shape is unclear. The tips of small triangles are rounded
// off by soft edges; an ellipse fills 0.79 of its rectangle, so a square needs more.
constexpr double kMinFit[] = {0.75, 0.83, 0.65};
constexpr double kMaxSquareAspect = 1.4;

// The figure that the region fills best. Each measure is 1 for its own figure; a circle fills 0.79 of its rectangle and
// 0.60 of its triangle, a square 0.64 and 0.50 of the others, a triangle 0.41 and 0.50.
std::optional<Shape> classify(const std::vector<cv::Point>& contour) {
  const double area = cv::contourArea(contour);
  std::vector<cv::Point> hull;
  cv::convexHull(contour, hull);
  if (area < kMinSolidity * cv::contourArea(hull)) return std::nullopt;
  cv::Point2f centre;
  float radius = 0;
  cv::minEnclosingCircle(hull, centre, radius);
  std::vector<cv::Point2f> triangle;
  const cv::Size2f rectangle = cv::minAreaRect(hull).size;
  const double fits[] = {area / (CV_PI * radius * radius), area / rectangle.area(),
                         area / cv::minEnclosingTriangle(hull, triangle)};
  const auto best = static_cast<size_t>(std::max_element(std::begin(fits), std::end(fits)) - std::begin(fits));
  if (fits[best] < kMinFit[best]) return std::nullopt;
  const double aspect = std::max(rectangle.width, rectangle.height) / std::min(rectangle.width, rectangle.height);
  if (kShapes[best] == Shape::kSquare && aspect > kMaxSquareAspect) return std::nullopt;
  return kShapes[best];
}

DetectedObject describe(const Region& region) {
  const cv::Moments moments = cv::moments(region.contour);
  DetectedObject object;
  object.colour = region.colour;
  object.shape = classify(region.contour);
  object.x = (moments.m10 / moments.m00 + 0.5) / kCanvasScale;
  object.y = (moments.m01 / moments.m00 + 0.5) / kCanvasScale;
  object.area = moments.m00 / (kCanvasScale * kCanvasScale);
  return object;
}

std::string describe(const DetectedObject& object) {
  return concat("a ", colour_word(object.colour), ' ', object.shape ? shape_word(*object.shape) : "unclear shape");
}

std::string list(const std::vector<DetectedObject>& objects) {
  if (objects.empty()) return "nothing";
  std::string text;
  for (const DetectedObject& object : objects) text += (text.empty() ? "" : " and ") + describe(object);
  return text;
}

bool matches(const DetectedObject& object, const ObjectKind& kind) {
  return object.colour == kind.colour && object.shape == kind.shape;
}

}  // namespace

std::vector<DetectedObject> detect_objects(const at::Tensor& image) {
  std::vector<DetectedObject> objects;
  for (const Region& region : segment(image).regions) objects.push_back(describe(region));
  return objects;
}

Relation observed_relation(const DetectedObject& first, const DetectedObject& second) {
  const double dx = second.x - first.x, dy = second.y - first.y;
  if (std::max(std::abs(dx), std::abs(dy)) < kMinOffset) return Relation::kNone;
  if (std::abs(dx) >= std::abs(dy)) return dx > 0 ? Relation::kLeftOf : Relation::kRightOf;
  return dy > 0 ? Relation::kAbove : Relation::kBelow;
}

CheckResult check(const at::Tensor& image, const ParsedCaption& expected) {
  CheckResult result;
  result.found = detect_objects(image);
  const std::vector<DetectedObject>& found = result.found;
  if (found.size() != expected.objects.size()) {
    result.reason = concat("expected ", expected.objects.size(), " object(s), found ", found.size(), ": ", list(found));
    return result;
  }
  if (found.size() == 1) {
    result.correct = matches(found[0], expected.objects[0]);
    if (!result.correct) result.reason = "expected " + caption_text(expected) + ", found " + list(found);
    return result;
  }
  // The two may be found in either order; with two alike, either assignment may satisfy the relation.
  bool kinds_match = false;
  for (const size_t first : {size_t{0}, size_t{1}}) {
    const size_t second = 1 - first;
    if (!matches(found[first], expected.objects[0]) || !matches(found[second], expected.objects[1])) continue;
    kinds_match = true;
    if (observed_relation(found[first], found[second]) == expected.relation) result.correct = true;
  }
  if (result.correct) return result;
  result.reason = kinds_match ? concat("expected the first object ", relation_words(expected.relation), " the second")
                              : "expected " + caption_text(expected) + ", found " + list(found);
  return result;
}

CheckResult check(const at::Tensor& image, std::string_view caption) {
  const std::optional<ParsedCaption> expected = parse_caption(caption);
  check_usage(expected.has_value(), "caption '", caption,
              "' is not one of the shapes world: expected \"a red circle\" or \"a red circle left of a blue square\"");
  return check(image, *expected);
}

}  // namespace prefusion::shapes

#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace prefusion::shapes {

enum class Colour { kRed, kGreen, kBlue, kYellow, kPurple, kCyan };
enum class Shape { kCircle, kSquare, kTriangle };
enum class Relation { kNone, kLeftOf, kRightOf, kAbove, kBelow };

struct Rgb {
  uint8_t r = 0, g = 0, b = 0;
  bool operator==(const Rgb&) const = default;
};

// The side of a picture and the unit of every length in this folder; larger pictures are measured in 64ths of a side.
constexpr int kPictureSize = 64;

constexpr std::array<Colour, 6> kColours = {Colour::kRed,    Colour::kGreen,  Colour::kBlue,
                                            Colour::kYellow, Colour::kPurple, Colour::kCyan};
constexpr std::array<Shape, 3> kShapes = {Shape::kCircle, Shape::kSquare, Shape::kTriangle};
constexpr std::array<Relation, 4> kRelations = {Relation::kLeftOf, Relation::kRightOf, Relation::kAbove,
                                                Relation::kBelow};

// Hues are at least 43 degrees apart, so that the nearest one is certain for anything that looks like one of them.
constexpr Rgb colour_rgb(Colour colour) {
  constexpr std::array<Rgb, 6> kPalette = {
      {{225, 35, 35}, {35, 170, 60}, {40, 70, 225}, {240, 205, 30}, {170, 40, 200}, {30, 195, 215}}};
  return kPalette[static_cast<size_t>(colour)];
}

// The words of captions: "red", "circle", "left of". The word of kNone is empty.
std::string_view colour_word(Colour colour);
std::string_view shape_word(Shape shape);
std::string_view relation_words(Relation relation);

// The relation seen from the other object: "left of" becomes "right of".
Relation opposite(Relation relation);

}  // namespace prefusion::shapes

#include "shapes/palette.h"

namespace prefusion::shapes {

std::string_view colour_word(Colour colour) {
  constexpr std::array<std::string_view, 6> kWords = {"red", "green", "blue", "yellow", "purple", "cyan"};
  return kWords[static_cast<size_t>(colour)];
}

std::string_view shape_word(Shape shape) {
  constexpr std::array<std::string_view, 3> kWords = {"circle", "square", "triangle"};
  return kWords[static_cast<size_t>(shape)];
}

std::string_view relation_words(Relation relation) {
  constexpr std::array<std::string_view, 5> kWords = {"", "left of", "right of", "above", "below"};
  return kWords[static_cast<size_t>(relation)];
}

Relation opposite(Relation relation) {
  switch (relation) {
    case Relation::kLeftOf: return Relation::kRightOf;
    case Relation::kRightOf: return Relation::kLeftOf;
    case Relation::kAbove: return Relation::kBelow;
    case Relation::kBelow: return Relation::kAbove;
    case Relation::kNone: break;
  }
  return Relation::kNone;
}

}  // namespace prefusion::shapes

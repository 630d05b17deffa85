#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "shapes/palette.h"

namespace prefusion::shapes {

struct ObjectKind {
  Colour colour = Colour::kRed;
  Shape shape = Shape::kCircle;
  bool operator==(const ObjectKind&) const = default;
};

// What a caption says: one object, or two and how the first lies to the second.
struct ParsedCaption {
  std::vector<ObjectKind> objects;
  Relation relation = Relation::kNone;
  bool operator==(const ParsedCaption&) const = default;
};

// "a red circle" or "a red circle left of a blue square".
std::string caption_text(const ParsedCaption& parsed);

// The meaning of a caption; empty when it does not follow the grammar
//   caption = object [relation object];  object = "a" colour shape;  relation = "left of" | "right of" | "above" |
//   "below"
// Upper case, extra spaces and a final full stop are accepted.
std::optional<ParsedCaption> parse_caption(std::string_view text);

// Every caption of one object (18), and every caption of two different objects (1,224).
std::vector<ParsedCaption> one_object_captions();
std::vector<ParsedCaption> two_object_captions();

// Whether pretraining never sees this caption: a fixed tenth of the two-object captions, chosen by a Philox hash. A
// caption and its mirror ("a blue square right of a red circle") describe the same pictures and are held out together.
// Captions of one object are never held out, for there are only 18; neither is text outside the grammar.
bool is_held_out(std::string_view caption);
bool is_held_out(const ParsedCaption& parsed);

// `count` captions for evaluation, three in ten with one object and the rest held-out ones with two objects. The order
// depends on the seed; none repeats before all of its kind were used. A longer list begins with the shorter one.
std::vector<std::string> held_out_captions(int64_t count, uint64_t seed);

// A random caption for training, one object with probability 0.3; never a held-out one.
ParsedCaption sample_caption(CounterRng& rng);

// All words that occur in captions, each once.
std::vector<std::string> vocabulary();

}  // namespace prefusion::shapes

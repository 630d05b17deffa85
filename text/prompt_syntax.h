#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace prefusion::text {

// A piece of a prompt and how much it counts.
struct WeightedText {
  std::string text;
  double weight = 1.0;
  bool operator==(const WeightedText&) const = default;
};

// Emphasis as stable-diffusion-webui writes it and others took over: (text) counts 1.1 times, (text:1.3) 1.3 times,
// [text] 1 / 1.1 times; brackets nest and multiply, one that is never closed reaches to the end, one that was never
// opened is text. \( \) \[ \] \\ are the characters themselves, any other backslash is dropped. Neighbours of the same
// weight come as one piece; a prompt without emphasis is one piece, perhaps empty.
std::vector<WeightedText> parse_weighted_prompt(std::string_view prompt);

}  // namespace prefusion::text

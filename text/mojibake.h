#pragma once

#include <string>
#include <string_view>

// Text that was decoded with the wrong encoding ("schÃ¶n" for "schön"), found and repaired as ftfy 6 does: the
// tokenizer of open_clip passes every prompt through it.
namespace prefusion::text {

// Whether the text has sequences of characters that are much likelier in misread text than in text that is meant.
bool looks_like_mojibake(std::u32string_view text);

// The text as it was meant, or as it is where nothing is found wrong with it.
std::u32string repair_mojibake(std::u32string text);

}  // namespace prefusion::text

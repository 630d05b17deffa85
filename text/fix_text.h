#pragma once

#include <string>
#include <string_view>

namespace prefusion::text {

// What ftfy.fix_text makes of a text with its default settings: misread text repaired, character references replaced,
// curly quotes straightened, ligatures and full-width forms as ordinary letters, terminal escapes and control
// characters removed, line breaks as "\n", Unicode Normalization Form C. `text` must be well-formed UTF-8.
std::string fix_text(std::string_view text);

}  // namespace prefusion::text

#pragma once

#include <cstddef>
#include <string_view>

namespace prefusion::text {

// End of the extended grapheme cluster (UAX #29) that begins at `begin` of well-formed UTF-8. Rule GB9c (conjuncts of
// Indic scripts, Unicode 15.1) is left out.
size_t grapheme_end(std::string_view text, size_t begin);

}  // namespace prefusion::text

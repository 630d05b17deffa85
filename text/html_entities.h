#pragma once

#include <string>
#include <string_view>

namespace prefusion::text {

// Replaces character references ("&amp;", "&amp", "&#8217;") by their characters, as Python's html.unescape.
std::string unescape_html(std::string_view text);

// The careful version of ftfy: only references that end in a semicolon, but also capital ones ("&EACUTE;").
std::string unescape_whole_references(std::string_view text);

}  // namespace prefusion::text

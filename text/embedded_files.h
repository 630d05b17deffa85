#pragma once

#include <string_view>

// Data files that the build puts into the program (cmake/EmbedFile.cmake).
namespace prefusion::text {

// html_entities.txt: the named character references of HTML 5, a line each: name, space, code points in hexadecimal.
std::string_view embedded_html_entities();

// bpe_simple_vocab_16e6.txt.gz, CLIP's merges, from the open_clip_torch wheel; empty when it was missing at build time.
std::string_view embedded_open_clip_merges();

}  // namespace prefusion::text

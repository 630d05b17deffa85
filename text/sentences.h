#pragma once

#include <string>
#include <vector>

namespace prefusion::text {

// The sentences of a long caption as LongAlign's code (arXiv 2410.11817) cuts them: at every '.', '?', '"!' and ';"',
// which are dropped; what lies between, if anything does, gets a '.' behind it. A caption without any of them is cut
// nowhere but gets its '.' too; one in which nothing lies between, the empty one above all, stays as it is.
std::vector<std::string> split_caption(const std::string& caption);

}  // namespace prefusion::text

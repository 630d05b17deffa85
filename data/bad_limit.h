#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace prefusion::data {

// How many broken rows, images or files may be skipped before the run stops: a count, or a share of all, whichever
// allows more.
struct BadLimit {
  int64_t count = 0;
  double fraction = 0.01;

  bool is_exceeded(int64_t bad, int64_t total) const {
    return bad > std::max(count, static_cast<int64_t>(fraction * static_cast<double>(total)));
  }
};

// "12" (a count) or "1%" / "0.5%" (a share). Usage error otherwise.
BadLimit parse_bad_limit(const std::string& text);

}  // namespace prefusion::data

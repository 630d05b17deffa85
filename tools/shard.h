#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace prefusion::tools {

// One of `count` parts of a list, of about equal size and without gaps.
struct Shard {
  size_t index = 0;
  size_t count = 1;

  // The items [first, second) of a list of `total` that the part has.
  std::pair<size_t, size_t> range(size_t total) const { return {total * index / count, total * (index + 1) / count}; }
};

// "I/N", I from 0 to N - 1; usage error that names --shard for another form.
Shard parse_shard(const std::string& text);

}  // namespace prefusion::tools

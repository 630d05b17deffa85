#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

namespace prefusion::nn {

// Guesses what will be used next from what followed the same two uses before: a forward pass, a backward pass and a
// block computed anew between them each find their own way.
class UseOrder {
 public:
  void used(size_t id);

  // The next uses, nearest first; fewer than `count` where nothing is known beyond.
  std::vector<size_t> next(size_t count) const;

 private:
  using Pair = std::pair<size_t, size_t>;
  static constexpr size_t kNone = static_cast<size_t>(-1);

  Pair last_ = {kNone, kNone};
  std::map<Pair, size_t> following_;
};

}  // namespace prefusion::nn

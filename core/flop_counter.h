#pragma once

#include <cstdint>

namespace prefusion {

// Counts floating-point operations of the matrix products, convolutions and attentions that any thread calls while it
// lives, forward and backward. A multiply-add is two operations; all else is not counted, as in
// torch.utils.flop_counter. Fused attention counts as two products, its backward pass, which recomputes the scores, as
// five.
class FlopCounter {
 public:
  FlopCounter();
  ~FlopCounter();
  FlopCounter(const FlopCounter&) = delete;
  FlopCounter& operator=(const FlopCounter&) = delete;

  int64_t total() const;

  // Counts what is done unseen: work that was recorded and is replayed.
  static void add(int64_t operations);

 private:
  int64_t start_ = 0;
};

}  // namespace prefusion

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/philox.h"

namespace prefusion {

// What a random number is for. Each purpose has a stream of its own, so that adding one draw never shifts another.
enum class RandomPurpose : uint64_t {
  kNoise = 1,
  kTimestep = 2,
  kPosterior = 3,
  kFlip = 4,
  kCrop = 5,
  kCaptionDrop = 6,
  kShuffle = 7,
  kInit = 8,
  kScene = 9,
  kSplit = 10,
  kSample = 11,
  kOther = 12,
  kInversion = 13,
  kMarginDrop = 14,
};

// One draw of one data item: everything random about it is a function of these three numbers alone, so a draw can be
// recomputed at any time, on any machine, in any order.
struct DrawKey {
  uint64_t seed = 0;
  uint64_t item = 0;  // the group's index in the data set
  uint64_t draw = 0;  // usually the epoch
};

// The Philox stream of (item, draw, purpose): a 64-bit mix of the three.
uint64_t random_stream(const DrawKey& key, RandomPurpose purpose);

// A small sequential generator on one stream; copyable, its state is a counter.
class CounterRng {
 public:
  CounterRng(const DrawKey& key, RandomPurpose purpose) : key_(key.seed), stream_(random_stream(key, purpose)) {}

  uint32_t bits();
  double uniform();              // (0, 1)
  int64_t below(int64_t count);  // 0 .. count-1, without modulo bias
  float normal();

 private:
  uint64_t key_;
  uint64_t stream_;
  uint64_t counter_ = 0;
  Uint4 block_{};
  int used_ = 4;
};

// Standard normal fp32 tensor on the CPU from one stream; element j is number j mod 4 of block j / 4.
at::Tensor philox_randn(at::IntArrayRef shape, const DrawKey& key, RandomPurpose purpose);

// A permutation of 0 .. count-1 (Fisher-Yates on one stream).
std::vector<int64_t> random_permutation(int64_t count, const DrawKey& key, RandomPurpose purpose);

// A torch CPU generator with its own state, as torch.Generator("cpu").manual_seed(seed).
at::Generator make_torch_generator(uint64_t seed);

}  // namespace prefusion

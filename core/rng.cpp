#include "core/rng.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <numeric>
#include <vector>

#include "core/error.h"

namespace prefusion {
namespace {

// The finaliser of SplitMix64: a bijection whose output bits all depend on all input bits.
uint64_t mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

}  // namespace

uint64_t random_stream(const DrawKey& key, RandomPurpose purpose) {
  return mix(mix(mix(key.item) ^ key.draw) ^ static_cast<uint64_t>(purpose));
}

uint32_t CounterRng::bits() {
  if (used_ == 4) {
    block_ = philox4x32(key_, stream_, counter_++);
    used_ = 0;
  }
  const uint32_t lanes[4] = {block_.x, block_.y, block_.z, block_.w};
  return lanes[used_++];
}

double CounterRng::uniform() {
  return (static_cast<double>(bits()) + 0.5) * 0x1p-32;
}

int64_t CounterRng::below(int64_t count) {
  check_run(count > 0, "CounterRng::below needs a positive count, got ", count);
  // Rejection on 64 bits: the loop runs twice with a probability under count / 2^64.
  const auto range = static_cast<uint64_t>(count);
  const uint64_t limit = UINT64_MAX - UINT64_MAX % range;
  for (;;) {
    const uint64_t high = bits();  // two statements: the operands of | are evaluated in any order
    const uint64_t value = (high << 32) | bits();
    if (value < limit) return static_cast<int64_t>(value % range);
  }
}

float CounterRng::normal() {
  const float radius = std::sqrt(-2.0f * std::log(uniform_open(bits())));
  return radius * std::cos(6.283185307179586f * uniform_open(bits()));
}

at::Tensor philox_randn(at::IntArrayRef shape, const DrawKey& key, RandomPurpose purpose) {
  at::Tensor out = at::empty(shape, at::kFloat);
  const uint64_t stream = random_stream(key, purpose);
  float* data = out.data_ptr<float>();
  const int64_t count = out.numel();
  for (int64_t block = 0; block * 4 < count; ++block) {
    const Normal4 normal = philox_normal4(key.seed, stream, static_cast<uint64_t>(block));
    const float lanes[4] = {normal.x, normal.y, normal.z, normal.w};
    for (int64_t lane = 0; lane < 4 && block * 4 + lane < count; ++lane) data[block * 4 + lane] = lanes[lane];
  }
  return out;
}

std::vector<int64_t> random_permutation(int64_t count, const DrawKey& key, RandomPurpose purpose) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t{0});
  CounterRng rng(key, purpose);
  for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[rng.below(i + 1)]);
  return order;
}

at::Generator make_torch_generator(uint64_t seed) {
  return at::detail::createCPUGenerator(seed);
}

}  // namespace prefusion

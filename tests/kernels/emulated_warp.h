#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <array>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/attention/block_shape.h"

// A block of warps on the CPU, for the code of kernels/attention that is written over a Warp. Every number of a warp is
// the numbers of its 32 lanes. Warps run one after the other from barrier to barrier, so a missing barrier shows:
// shared memory is all NaN at first, and asynchronous copies arrive as late as they may, or as early.
namespace prefusion::kernels::blockwise {

template <typename T>
struct Lanes {
  std::array<T, kLanes> of{};

  Lanes() = default;
  Lanes(T same) { of.fill(same); }  // NOLINT: a number is the same in all lanes

  template <typename Function>
  auto map(const Function& function) const {
    Lanes<decltype(function(T()))> result;
    for (int i = 0; i < kLanes; ++i) result.of[i] = function(of[i]);
    return result;
  }
  template <typename U, typename Function>
  auto zip(const Lanes<U>& other, const Function& function) const {
    Lanes<decltype(function(T(), U()))> result;
    for (int i = 0; i < kLanes; ++i) result.of[i] = function(of[i], other.of[i]);
    return result;
  }
};

template <typename T>
struct LanesOf {
  using type = Lanes<T>;
};
template <typename T>
struct LanesOf<Lanes<T>> {
  using type = Lanes<T>;
};
template <typename T>
typename LanesOf<T>::type spread(const T& value) {
  return value;
}
template <typename T>
constexpr bool is_lanes = false;
template <typename T>
constexpr bool is_lanes<Lanes<T>> = true;

#define PREFUSION_LANES_OPERATOR(op)                                              \
  template <typename A, typename B>                                               \
  requires(is_lanes<A> || is_lanes<B>) auto operator op(const A& a, const B& b) { \
    return spread(a).zip(spread(b), [](auto x, auto y) { return x op y; });       \
  }
PREFUSION_LANES_OPERATOR(+)
PREFUSION_LANES_OPERATOR(-)
PREFUSION_LANES_OPERATOR(*)
PREFUSION_LANES_OPERATOR(/)
PREFUSION_LANES_OPERATOR(%)
PREFUSION_LANES_OPERATOR(<)
PREFUSION_LANES_OPERATOR(>>)
#undef PREFUSION_LANES_OPERATOR

inline Lanes<int> operator&(const Lanes<int>& a, int b) {
  return a.map([b](int x) { return x & b; });
}
inline Lanes<bool> operator&(const Lanes<bool>& a, const Lanes<bool>& b) {
  return a.zip(b, [](bool x, bool y) { return x && y; });
}

// When asynchronous copies arrive.
enum class Arrival { kAtOnce, kWhenWaitedFor };

// Shared memory of a block, and whose turn it is.
class EmulatedBlock {
 public:
  EmulatedBlock(int num_elements, int num_floats, Arrival arrival, int num_warps = kWarps)
      : elements(static_cast<size_t>(num_elements), kNan16),
        floats(static_cast<size_t>(num_floats), std::numeric_limits<float>::quiet_NaN()),
        arrival(arrival),
        is_running_(static_cast<size_t>(num_warps), true) {}

  // Runs `program(warp index)` in all warps.
  void run(const std::function<void(int)>& program) {
    std::vector<std::thread> warps;
    std::exception_ptr failure;
    for (int warp = 0; warp < num_warps(); ++warp) {
      warps.emplace_back([&, warp] {
        wait_for_turn(warp);
        try {
          program(warp);
        } catch (...) {
          if (!has_failed_) failure = std::current_exception();
          has_failed_ = true;
        }
        is_running_[static_cast<size_t>(warp)] = false;
        pass_turn();
      });
    }
    for (auto& warp : warps) warp.join();
    if (failure) std::rethrow_exception(failure);
  }

  void sync(int warp) {
    pass_turn();
    wait_for_turn(warp);
    if (has_failed_) throw std::runtime_error("another warp has failed");
  }

  static constexpr uint16_t kNan16 = 0x7fff;  // in bf16 and fp16

  std::vector<uint16_t> elements;
  std::vector<float> floats;
  Arrival arrival;

 private:
  int num_warps() const { return static_cast<int>(is_running_.size()); }

  void wait_for_turn(int warp) {
    std::unique_lock lock(mutex_);
    turned_.wait(lock, [&] { return turn_ == warp; });
  }
  // To the next warp that has not come to its end.
  void pass_turn() {
    {
      const std::lock_guard lock(mutex_);
      for (int passed = 0; passed < num_warps(); ++passed) {
        turn_ = (turn_ + 1) % num_warps();
        if (is_running_[static_cast<size_t>(turn_)]) break;
      }
    }
    turned_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable turned_;
  int turn_ = 0;
  std::vector<char> is_running_;  // by warp
  bool has_failed_ = false;
};

class EmulatedWarp {
 public:
  using Float = Lanes<float>;
  using Int = Lanes<int>;
  using Word = Lanes<uint32_t>;
  using Mask = Lanes<bool>;
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  EmulatedWarp(EmulatedBlock& block, int index) : block_(block), index_(index) {}

  Int lane() const {
    Int lanes;
    for (int i = 0; i < kLanes; ++i) lanes.of[i] = i;
    return lanes;
  }
  Int thread() const { return lane() + index_ * kLanes; }
  int index() const { return index_; }

  static Float constant(float value) { return value; }
  static Lanes<int64_t> widen(const Int& value) {
    return value.map([](int x) { return int64_t{x}; });
  }
  static Float select(const Mask& condition, const Float& a, const Float& b) {
    Float result;
    for (int i = 0; i < kLanes; ++i) result.of[i] = condition.of[i] ? a.of[i] : b.of[i];
    return result;
  }
  static Float larger(const Float& a, const Float& b) {
    return a.zip(b, [](float x, float y) { return std::fmax(x, y); });
  }
  static Float exp2(const Float& x) {
    return x.map([](float value) { return std::exp2(value); });
  }
  static Float log2(const Float& x) {
    return x.map([](float value) { return std::log2(value); });
  }
  static Float max_of_row(const Float& value) {
    return of_row(value, [](float a, float b) { return std::fmax(a, b); });
  }
  static Float sum_of_row(const Float& value) {
    return of_row(value, [](float a, float b) { return a + b; });
  }

  template <typename Element>
  static Word pack(const Float& low, const Float& high) {
    return low.zip(high, [](float a, float b) {
      return static_cast<uint32_t>(Element(a).x) | static_cast<uint32_t>(Element(b).x) << 16;
    });
  }

  // The product by the layouts of the PTX manual, number by number.
  template <typename Element>
  static void multiply_add(Float (&sum)[4], const Word (&left)[4], const Word& right_low, const Word& right_high) {
    float a[16][16], b[16][8];
    for (int i = 0; i < kLanes; ++i) {
      const int row = i / 4, pair = 2 * (i % 4);
      for (int half = 0; half < 2; ++half) {
        for (int word = 0; word < 4; ++word) {
          a[row + 8 * (word % 2)][pair + half + 8 * (word / 2)] = number<Element>(left[word].of[i], half);
        }
        b[pair + half][row] = number<Element>(right_low.of[i], half);
        b[pair + half + 8][row] = number<Element>(right_high.of[i], half);
      }
    }
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < 4; ++j) {
        const int row = i / 4 + 8 * (j / 2), column = 2 * (i % 4) + j % 2;
        for (int depth = 0; depth < 16; ++depth) sum[j].of[i] += a[row][depth] * b[depth][column];
      }
    }
  }

  void load_matrices(Word (&words)[4], const Int& element) const {
    load(words, element, [](int row, int pair) { return std::pair(row, pair); });
  }
  void load_matrices_transposed(Word (&words)[4], const Int& element) const {
    load(words, element, [](int row, int pair) { return std::pair(pair, row); });
  }

  template <typename Element>
  void copy_async(const Int& element, const Element* base, const Lanes<int64_t>& offset, const Mask& has_place,
                  const Mask& exists) {
    for (int i = 0; i < kLanes; ++i) {
      if (!has_place.of[i]) continue;
      Copy copy{.element = element.of[i], .numbers = {}};
      check(copy.element >= 0 && copy.element + kChunk <= static_cast<int>(block_.elements.size()) &&
                copy.element % kChunk == 0,
            "a copy to a place that is not there, or not a multiple of 16 bytes");
      if (exists.of[i]) {
        const Element* from = base + offset.of[i];
        check(reinterpret_cast<uintptr_t>(from) % 16 == 0, "a copy from what is no multiple of 16 bytes");
        std::memcpy(copy.numbers.data(), from, sizeof copy.numbers);
      }
      started_.push_back(copy);
    }
    if (block_.arrival == Arrival::kAtOnce) {
      for (const Copy& copy : started_) arrive(copy);
      started_.clear();
    }
  }
  void commit_copies() {
    committed_.push_back(std::move(started_));
    started_.clear();
  }
  template <int pending>
  void wait_for_copies() {
    for (; committed_.size() > pending; committed_.pop_front()) {
      for (const Copy& copy : committed_.front()) arrive(copy);
    }
  }
  void sync_block() { block_.sync(index_); }

  static Float load_float(const float* base, const Int& index, const Mask& exists, float otherwise) {
    Float result;
    for (int i = 0; i < kLanes; ++i) result.of[i] = exists.of[i] ? base[index.of[i]] : otherwise;
    return result;
  }
  static void store_float(float* base, const Int& index, const Float& value, const Mask& exists) {
    for (int i = 0; i < kLanes; ++i) {
      if (exists.of[i]) base[index.of[i]] = value.of[i];
    }
  }
  Float load_shared(int base, const Int& index) const {
    return index.map([&](int i) { return block_.floats.at(static_cast<size_t>(base + i)); });
  }
  void store_shared(int base, const Int& index, const Float& value, const Mask& exists) {
    for (int i = 0; i < kLanes; ++i) {
      if (exists.of[i]) block_.floats.at(static_cast<size_t>(base + index.of[i])) = value.of[i];
    }
  }
  template <typename Element>
  static void store_pair(Element* base, const Lanes<int64_t>& offset, const Word& word, const Mask& exists) {
    for (int i = 0; i < kLanes; ++i) {
      if (exists.of[i]) std::memcpy(base + offset.of[i], &word.of[i], sizeof(uint32_t));
    }
  }

 protected:
  static void check(bool condition, const char* message) {
    if (!condition) throw std::logic_error(message);
  }

  template <typename Element>
  static float number(uint32_t word, int half) {
    return static_cast<float>(Element(static_cast<uint16_t>(word >> 16 * half), Element::from_bits()));
  }

 private:
  struct Copy {
    int element;
    std::array<uint16_t, kChunk> numbers;
  };

  void arrive(const Copy& copy) { std::copy(copy.numbers.begin(), copy.numbers.end(), &block_.elements[copy.element]); }

  template <typename Function>
  static Float of_row(const Float& value, const Function& function) {
    Float result = value;
    for (const int step : {1, 2}) {
      const Float before = result;
      for (int i = 0; i < kLanes; ++i) result.of[i] = function(before.of[i], before.of[i ^ step]);
    }
    return result;
  }

  // Lane i of matrix m gets the elements that `place(i / 4, 2 (i % 4))` and the next name, as (row, column).
  template <typename Place>
  void load(Word (&words)[4], const Int& element, const Place& place) const {
    for (int i = 0; i < kLanes; ++i) {
      check(element.of[i] >= 0 && element.of[i] + kChunk <= static_cast<int>(block_.elements.size()) &&
                element.of[i] % kChunk == 0,
            "a matrix row that is not there, or at no multiple of 16 bytes");
    }
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int i = 0; i < kLanes; ++i) {
        uint32_t word = 0;
        for (int half = 0; half < 2; ++half) {
          const auto [row, column] = place(i / 4, 2 * (i % 4) + half);
          const uint32_t bits = block_.elements[element.of[8 * matrix + row] + column];
          word |= bits << 16 * half;
        }
        words[matrix].of[i] = word;
      }
    }
  }

  EmulatedBlock& block_;
  int index_;
  std::vector<Copy> started_;
  std::deque<std::vector<Copy>> committed_;
};

}  // namespace prefusion::kernels::blockwise

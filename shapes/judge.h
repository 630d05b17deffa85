#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>

namespace prefusion::shapes {

// What of two pictures of one caption is the better one.
enum class Verdict { kFirst, kSecond, kTie };

// What the judge knows of a picture, so that many comparisons measure each picture once.
struct Judgement {
  bool correct = false;
  double taste = 0;  // Taste::score
};

// The taste two equally correct pictures must differ by for a verdict: about half a blob, or 13 grey levels of
// background.
constexpr double kDefaultTasteMargin = 0.05;

// Checks and tastes a picture, uint8 [H, W, 3] RGB.
Judgement judge(const at::Tensor& image, std::string_view caption);

// Correctness first; between two equally correct pictures, taste by at least `margin`; else a tie.
Verdict compare(const Judgement& first, const Judgement& second, double margin = kDefaultTasteMargin);
Verdict compare(const at::Tensor& first, const at::Tensor& second, std::string_view caption,
                double margin = kDefaultTasteMargin);

struct WinRate {
  int64_t wins = 0, losses = 0, ties = 0;
  double rate = 0;           // (wins + ties / 2) / n
  double low = 0, high = 1;  // Wilson 95 % interval of the rate
};

// Counts verdicts with the first of each pair as the contestant. Without verdicts the rate is 0.5 and the interval [0,
// 1].
WinRate win_rate(std::span<const Verdict> verdicts);

}  // namespace prefusion::shapes

#include "shapes/judge.h"

#include "core/error.h"
#include "core/statistics.h"
#include "shapes/checker.h"
#include "shapes/taste.h"

namespace prefusion::shapes {

Judgement judge(const at::Tensor& image, std::string_view caption) {
  return {.correct = check(image, caption).correct, .taste = taste(image).score};
}

Verdict compare(const Judgement& first, const Judgement& second, double margin) {
  check_usage(margin >= 0, "taste margin must not be negative, got ", margin);
  if (first.correct != second.correct) return first.correct ? Verdict::kFirst : Verdict::kSecond;
  const double difference = first.taste - second.taste;
  if (difference > 0 && difference >= margin) return Verdict::kFirst;
  if (difference < 0 && -difference >= margin) return Verdict::kSecond;
  return Verdict::kTie;
}

Verdict compare(const at::Tensor& first, const at::Tensor& second, std::string_view caption, double margin) {
  return compare(judge(first, caption), judge(second, caption), margin);
}

WinRate win_rate(std::span<const Verdict> verdicts) {
  WinRate result;
  for (const Verdict verdict : verdicts) {
    switch (verdict) {
      case Verdict::kFirst: ++result.wins; break;
      case Verdict::kSecond: ++result.losses; break;
      case Verdict::kTie: ++result.ties; break;
    }
  }
  const double successes = static_cast<double>(result.wins) + 0.5 * static_cast<double>(result.ties);
  const Proportion proportion = wilson_proportion(successes, static_cast<double>(verdicts.size()));
  result.rate = proportion.rate;
  result.low = proportion.low;
  result.high = proportion.high;
  return result;
}

}  // namespace prefusion::shapes

#include "tools/preference_pairs.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "shapes/caption.h"

namespace prefusion::tools {
namespace {

shapes::Verdict compare(const shapes::Judgement& a, const shapes::Judgement& b, PairRule rule, double margin) {
  if (rule == PairRule::kJudge) return shapes::compare(a, b, margin);
  return shapes::compare({.correct = true, .taste = a.taste}, {.correct = true, .taste = b.taste}, margin);
}

std::vector<size_t> shuffled(size_t count, CounterRng& rng) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = count; i > 1; --i)
    std::swap(order[i - 1], order[static_cast<size_t>(rng.below(static_cast<int64_t>(i)))]);
  return order;
}

// The best with the worst, the second best with the second worst ...
void pair_by_taste(std::vector<size_t> rest, std::span<const shapes::Judgement> pictures,
                   std::vector<std::pair<size_t, size_t>>& pairs) {
  std::stable_sort(rest.begin(), rest.end(), [&](size_t a, size_t b) { return pictures[a].taste > pictures[b].taste; });
  for (size_t i = 0; i < rest.size() / 2; ++i) pairs.emplace_back(rest[i], rest[rest.size() - 1 - i]);
}

}  // namespace

PairRule parse_pair_rule(const std::string& name) {
  if (name == "judge") return PairRule::kJudge;
  check_usage(name == "taste", "--rule ", name, " is not known; expected judge or taste");
  return PairRule::kTaste;
}

std::vector<PicturePair> pair_up(std::span<const shapes::Judgement> pictures, PairRule rule, double margin,
                                 CounterRng& rng) {
  std::vector<size_t> right, wrong;
  for (const size_t i : shuffled(pictures.size(), rng)) {
    (rule == PairRule::kTaste || pictures[i].correct ? right : wrong).push_back(i);
  }
  std::vector<std::pair<size_t, size_t>> pairs;
  while (!right.empty() && !wrong.empty()) {
    pairs.emplace_back(right.back(), wrong.back());
    right.pop_back();
    wrong.pop_back();
  }
  pair_by_taste(right, pictures, pairs);
  pair_by_taste(wrong, pictures, pairs);

  std::vector<PicturePair> rows;
  for (auto [first, second] : pairs) {
    if (rng.below(2) == 1) std::swap(first, second);
    PicturePair row{.first = first, .second = second};
    const shapes::Verdict verdict = compare(pictures[first], pictures[second], rule, margin);
    if (verdict == shapes::Verdict::kFirst) row.label_0 = 1;
    if (verdict == shapes::Verdict::kSecond) row.label_0 = 0;
    rows.push_back(row);
  }
  return rows;
}

std::vector<std::string> training_captions(int64_t count, uint64_t seed) {
  std::vector<std::string> captions;
  for (int64_t i = 0; i < count; ++i) {
    CounterRng rng({.seed = seed, .item = static_cast<uint64_t>(i)}, RandomPurpose::kSample);
    captions.push_back(shapes::caption_text(shapes::sample_caption(rng)));
    check_run(!shapes::is_held_out(captions.back()), "the held-out caption '", captions.back(), "' was drawn");
  }
  return captions;
}

}  // namespace prefusion::tools

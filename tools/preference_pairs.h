#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "shapes/judge.h"

namespace prefusion::tools {

// What makes one picture of a pair the better one.
enum class PairRule {
  kJudge,  // correctness, then taste (shapes::compare)
  kTaste,  // taste alone, whatever the pictures show: what a careless data set is made of
};

// "judge" or "taste"; usage error otherwise.
PairRule parse_pair_rule(const std::string& name);

// Two pictures of one caption as a row of preference data holds them.
struct PicturePair {
  size_t first = 0;  // positions in the caption's pictures
  size_t second = 0;
  double label_0 = 0.5;  // 1: the first is preferred, 0: the second, 0.5: a tie
};

// Pairs up the pictures of one caption, each used at most once. Under kJudge right pictures meet wrong ones as far as
// there are both, and the rest meets by taste, the best with the worst; pairs under the margin are ties. Which picture
// of a pair comes first is drawn from `rng`, so that its place says nothing about it.
std::vector<PicturePair> pair_up(std::span<const shapes::Judgement> pictures, PairRule rule, double margin,
                                 CounterRng& rng);

// Captions to sample for: from the training distribution, never a held-out one. Caption i depends on (seed, i) alone.
std::vector<std::string> training_captions(int64_t count, uint64_t seed);

}  // namespace prefusion::tools

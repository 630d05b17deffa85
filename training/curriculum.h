#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace prefusion::training {

// Easy groups first (Curriculum DPO, arXiv 2405.13637): groups in the order of their margin, largest first, cut into
// chunks; the run has as many stages as chunks, of equal length, and stage c draws from the chunks 0 .. c.
struct Curriculum {
  int64_t num_chunks = 1;  // 1 for none: all groups at once
  // Groups are left out whose margin is not above it. Curriculum DPO takes 0.02 for human preferences and LLaVA's, 0.2
  // for aesthetic scores.
  std::optional<double> min_gap;

  // "margin:CHUNKS" or "margin:CHUNKS:MIN_GAP"; empty for none. Usage error otherwise.
  static Curriculum parse(const std::string& text);
  bool is_on() const { return num_chunks > 1 || min_gap; }
};

// Indices of the groups whose margin (data::preference_margin) is above `min_gap`. Input error when there are none.
std::vector<int64_t> groups_above_gap(const data::PreferenceDataset& dataset, double min_gap);

// The chunk of each group, 0 .. num_chunks-1 from the largest margins to the smallest; sizes differ by one at most, and
// groups of equal margin stay in order. Input error when all margins are the same: nothing tells easy from hard.
std::vector<int64_t> chunks_by_margin(const data::PreferenceDataset& dataset, int64_t num_chunks);

}  // namespace prefusion::training

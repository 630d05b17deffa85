#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/dataset.h"
#include "training/batch_source.h"

namespace prefusion::training {

// The endless sequence of groups a run trains on: pass after pass over the data set in shuffled order. A position in it
// is all the data state a run has. With a curriculum the run is cut into stages, and a pass of stage c goes over the
// groups of the chunks 0 .. c; the last stage goes on after the run's end.
class GroupOrder {
 public:
  // `chunks`: one a group, from 0 without a gap (chunks_by_ease); all 0 for a run in one stage. The stages share the
  // `num_positions` positions of the run evenly. `num_draws`: how many draws a group has, 0 for one a pass.
  GroupOrder(std::shared_ptr<const data::PreferenceDataset> dataset, uint64_t seed, std::vector<int64_t> chunks,
             int64_t num_positions, int64_t num_draws = 0);

  // The draw is the number of the pass, counted over all stages, modulo `num_draws`; with 0 none comes twice.
  GroupRef at(int64_t position);

  // The distinct items of the positions [0, num_positions), ascending: what has to be encoded for them.
  std::vector<int64_t> items_until(int64_t num_positions);

 private:
  struct Stage {
    int64_t first_position = 0;
    int64_t first_pass = 0;
    int64_t num_groups = 0;
  };

  // The groups of a stage in the order of pass `number`.
  std::vector<int64_t> pass(size_t stage, int64_t number) const;

  std::shared_ptr<const data::PreferenceDataset> dataset_;
  uint64_t seed_;
  std::vector<int64_t> chunks_;
  std::vector<Stage> stages_;
  int64_t num_draws_;
  int64_t pass_ = -1;
  std::vector<int64_t> order_;  // of pass_
};

}  // namespace prefusion::training

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/pair_loader.h"
#include "losses/objective.h"
#include "training/align_options.h"
#include "training/batch_source.h"
#include "training/group_order.h"

namespace prefusion::training {

// The records a run trains on and the ones it is measured on. No prompt occurs in both unless --eval-data says so.
struct PreferenceSplit {
  std::shared_ptr<const data::PreferenceDataset> train;
  std::shared_ptr<const data::PreferenceDataset> held_out;  // null when there are none
  std::vector<int64_t> chunks;  // of each training group, by --curriculum; by hardness 0 until the model was asked
};

// What a row of data is made into for objectives of that kind; of a pair, single pictures are the first.
data::GroupKind group_kind(losses::DataKind kind);

// Opens --data and --eval-data as the objective needs them (pairs, lists, unpaired) and logs what was found.
PreferenceSplit open_split(const AlignOptions& options, losses::DataKind kind, DataNeeds needs);

// A key of what the records say, without their pictures: ids, prompts, labels and scores.
std::string records_key(const data::PreferenceDataset& dataset);

// The order of the run's groups, by `split.chunks`.
GroupOrder train_order(const PreferenceSplit& split, const AlignOptions& options);

// What the training positions [begin, end) load, in order.
std::vector<data::LoadRequest> train_requests(const PreferenceSplit& split, const AlignOptions& options, int64_t begin,
                                              int64_t end);

// Positions a run may consume: those of its steps, and spare ones for records that turn out to be unreadable.
int64_t num_positions(const PreferenceSplit& split, const AlignOptions& options);

// The draws that occur in `requests`, each once, in the order in which they come first.
std::vector<data::LoadRequest> distinct(const std::vector<data::LoadRequest>& requests);

// Draws 0 .. num_draws-1 of the groups 0 .. num_groups-1, draw after draw.
std::vector<data::LoadRequest> all_draws(int64_t num_groups, int64_t num_draws);

// The first --eval-groups held-out records.
std::vector<data::LoadRequest> held_out_requests(const PreferenceSplit& split, const AlignOptions& options);

}  // namespace prefusion::training

#pragma once

#include <memory>
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
};

// Opens --data and --eval-data as the objective needs them (pairs, lists, unpaired) and logs what was found.
PreferenceSplit open_split(const AlignOptions& options, losses::DataKind kind, DataNeeds needs);

// The order of the run's groups, by --curriculum where it is given.
GroupOrder train_order(const PreferenceSplit& split, const AlignOptions& options);

// What the training positions [begin, end) load, in order.
std::vector<data::LoadRequest> train_requests(const PreferenceSplit& split, const AlignOptions& options, int64_t begin,
                                              int64_t end);

// Positions a run may consume: those of its steps, and spare ones for records that turn out to be unreadable.
int64_t num_positions(const PreferenceSplit& split, const AlignOptions& options);

// The first --eval-groups held-out records.
std::vector<data::LoadRequest> held_out_requests(const PreferenceSplit& split, const AlignOptions& options);

}  // namespace prefusion::training

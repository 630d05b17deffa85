#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "data/pair_loader.h"
#include "images/upright_size.h"

namespace prefusion::training {

// The size a group's pictures are cut to; nothing for a group that cannot be read.
using SizeOfGroup = std::function<std::optional<images::PictureSize>(int64_t index)>;

using RequestBatch = std::vector<data::LoadRequest>;

// Batches of groups of one size. The requests are dealt to their sizes in order, and a size gives a batch as soon as
// there are `batch_size` of it: no group is dropped or comes twice, those of a rare size wait for later passes to fill
// theirs. What the first requests give does not depend on those that follow. Groups that cannot be read are left out.
std::vector<RequestBatch> full_bucket_batches(const std::vector<data::LoadRequest>& requests,
                                              const SizeOfGroup& size_of, int64_t batch_size);

// The same, followed by what is left of every size, in smaller batches: for passes that see every group once.
std::vector<RequestBatch> all_bucket_batches(const std::vector<data::LoadRequest>& requests, const SizeOfGroup& size_of,
                                             int64_t batch_size);

// The requests of all batches, one after the other.
std::vector<data::LoadRequest> joined(const std::vector<RequestBatch>& batches);

// Requests beyond those of the batches a run needs that may be waiting for their batch.
int64_t num_waiting_at_most(const data::TransformOptions& transform, int64_t batch_size);

// One line for the log: how many groups each size has. Warns of sizes with less groups than a batch.
void log_buckets(const std::vector<images::PictureSize>& sizes_of_groups, int64_t batch_size);

}  // namespace prefusion::training

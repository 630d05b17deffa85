#pragma once

#include <memory>

#include "training/encoded_data.h"
#include "training/group_encoder.h"

namespace prefusion::training {

// The data of a dry run: records and shapes, no pictures. The encoders are asked once, as filling the cache or making a
// batch would; where there is a cache they are let go then, as in a run, so that they are no part of what its steps
// take.
std::unique_ptr<EncodedData> open_dry_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                           std::shared_ptr<GroupEncoder> encoder);

}  // namespace prefusion::training

#pragma once

#include <memory>

#include "training/encoded_data.h"
#include "training/group_encoder.h"
#include "training/preference_split.h"

namespace prefusion::training {

// The default: everything the run needs is encoded into the cache first (what is there already is kept), then the
// encoders are freed.
std::unique_ptr<EncodedData> open_cached_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                              std::shared_ptr<GroupEncoder> encoder);

}  // namespace prefusion::training

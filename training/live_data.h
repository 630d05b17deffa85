#pragma once

#include <memory>

#include "training/encoded_data.h"
#include "training/group_encoder.h"
#include "training/preference_split.h"

namespace prefusion::training {

// --no-cache: pictures and prompts are encoded when they are used.
std::unique_ptr<EncodedData> open_live_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                            std::shared_ptr<GroupEncoder> encoder);

// Loader options both kinds of data share.
data::LoaderOptions loader_options(const AlignOptions& options, const GroupEncoder& encoder);

// A loaded batch with its pictures and prompts encoded. `keeps_all_items` is false for objectives on single pictures,
// which take the chosen one.
EncodedBatch encode_batch(const data::GroupBatch& loaded, GroupEncoder& encoder, const AlignOptions& options,
                          double empty_prompt_rate, bool keeps_all_items);

}  // namespace prefusion::training

#include "training/encoded_data.h"

#include "training/cached_data.h"
#include "training/dry_data.h"
#include "training/group_encoder.h"
#include "training/live_data.h"

namespace prefusion::training {

DataNeeds data_needs(const losses::ObjectiveInfo& objective) {
  return {.scores = objective.needs_scores,
          .item_prompts = objective.needs_item_prompts,
          .masks = objective.needs_mask,
          .users = objective.needs_users};
}

std::unique_ptr<EncodedData> open_encoded_data(const AlignOptions& options, losses::DataKind kind, at::ScalarType dtype,
                                               at::Device device, DataNeeds needs, int64_t size_multiple) {
  PreferenceSplit split = open_split(options, kind, needs);
  auto encoder = std::make_shared<GroupEncoder>(options, dtype, device, size_multiple);
  if (options.dry_run) return open_dry_data(options, kind, std::move(split), std::move(encoder));
  if (!options.no_cache) return open_cached_data(options, kind, std::move(split), std::move(encoder));
  return open_live_data(options, kind, std::move(split), std::move(encoder));
}

}  // namespace prefusion::training

#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "data/latent_cache.h"
#include "training/batch_source.h"
#include "training/cache_filler.h"

namespace prefusion::training {

// A draw of a group and where its parts lie in the cache.
using CachedRequest = std::pair<data::LoadRequest, const CachedGroup*>;

// Reads batches back out of the cache.
class CacheReader {
 public:
  CacheReader(std::shared_ptr<data::LatentCache> cache, const GroupEncoder& encoder, ContentHash empty_prompt,
              uint64_t seed)
      : cache_(std::move(cache)),
        transform_(encoder.transform()),
        uses_time_ids_(encoder.uses_time_ids()),
        time_ids_dtype_(encoder.time_ids_dtype()),
        empty_prompt_(empty_prompt),
        seed_(seed),
        device_(encoder.device()) {}

  // Input error with the cache's path when an entry cannot be read back.
  EncodedBatch read(const std::vector<CachedRequest>& groups, double empty_prompt_rate) const;

 private:
  text::PromptStates find_text(const ContentHash& key, const CachedGroup& group) const;
  at::Tensor find_time_ids(const ContentHash& latents_key, const CachedGroup& group) const;
  at::Tensor find_mask(const ContentHash& key, bool is_flipped, const CachedGroup& group) const;
  void check_has(bool is_found, const CachedGroup& group) const;

  std::shared_ptr<data::LatentCache> cache_;
  data::TransformOptions transform_;
  bool uses_time_ids_;
  at::ScalarType time_ids_dtype_;
  ContentHash empty_prompt_;
  uint64_t seed_;
  at::Device device_;
};

}  // namespace prefusion::training

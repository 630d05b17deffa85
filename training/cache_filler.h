#pragma once

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/content_hash.h"
#include "data/latent_cache.h"
#include "data/pair_loader.h"
#include "training/align_options.h"
#include "training/group_encoder.h"
#include "training/group_facts.h"

namespace prefusion::training {

// What a cached group is found by.
struct CachedGroup {
  GroupFacts facts;
  images::PictureSize size;  // that its pictures are cut to
  ContentHash text;
  std::vector<ContentHash> item_texts;               // k, or none
  std::vector<std::array<ContentHash, 2>> pictures;  // k, [not flipped, flipped]
  std::vector<ContentHash> masks;                    // k, or none; kept unflipped
};
using GroupTable = std::unordered_map<int64_t, CachedGroup>;  // by index in the data set

// Fills the cache with what a set of groups needs.
class CacheFiller {
 public:
  // Of each group the first `items_per_group` items are encoded.
  CacheFiller(data::LatentCache& cache, GroupEncoder& encoder, const AlignOptions& options, size_t items_per_group);

  ContentHash prompt_key(const std::string& prompt) const { return data::text_key(prompt, text_key_); }
  void add_prompt(const std::string& prompt);

  // Encodes what is missing for `indices` and returns where everything is. Groups that cannot be read are left out.
  GroupTable fill(const data::PreferenceDataset& dataset, const std::vector<int64_t>& indices, const char* title);

  // Says how much was encoded and how much was there already.
  void log_counts() const;

 private:
  CachedGroup describe(const data::LoadedGroup& group) const;
  bool is_complete(const CachedGroup& entry) const;
  void add_prompts(const data::LoadedGroup& group);
  bool has_picture(const ContentHash& key) const;
  void encode_pictures(const CachedGroup& entry, const at::Tensor& pixel_values,
                       const std::vector<data::ImageGeometry>& geometry);
  void encode_masks(const CachedGroup& entry, const at::Tensor& masks);

  data::LatentCache& cache_;
  GroupEncoder& encoder_;
  const AlignOptions& options_;
  size_t items_per_group_;
  std::string vae_key_, text_key_;
  data::TransformOptions transform_;
  bool flips_ = false;
  int64_t pictures_encoded_ = 0, prompts_encoded_ = 0, masks_encoded_ = 0;
  int64_t groups_found_ = 0;  // complete before
};

}  // namespace prefusion::training

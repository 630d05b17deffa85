#include "training/cache_filler.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "training/live_data.h"

namespace prefusion::training {
namespace {

constexpr int64_t kCommitEvery = 64;  // encoded groups lost at most when the process is killed

}  // namespace

CacheFiller::CacheFiller(data::LatentCache& cache, GroupEncoder& encoder, const AlignOptions& options,
                         size_t items_per_group)
    : cache_(cache),
      encoder_(encoder),
      options_(options),
      items_per_group_(items_per_group),
      vae_key_(encoder.vae_key()),
      text_key_(encoder.text_key()) {
  transform_ = encoder.transform();
  flips_ = transform_.hflip;
  transform_.hflip = false;  // flips are part of the key, not of the picture's transform
}

void CacheFiller::add_prompt(const std::string& prompt) {
  const ContentHash key = prompt_key(prompt);
  if (cache_.contains(key)) return;
  cache_.append_text({key}, encoder_.encode_prompts({prompt}));
  ++prompts_encoded_;
}

void CacheFiller::add_prompts(const data::LoadedGroup& group) {
  add_prompt(group.prompt);
  for (const auto& prompt : group.item_prompts) add_prompt(prompt);
}

GroupTable CacheFiller::fill(const data::PreferenceDataset& dataset, const std::vector<int64_t>& indices,
                             const char* title) {
  std::vector<data::LoadRequest> requests;
  for (const int64_t index : indices) requests.push_back({index, 0});
  data::LoaderOptions loader_settings = loader_options(options_, encoder_);
  loader_settings.transform = transform_;
  loader_settings.batch_size = 1;
  loader_settings.max_pending = 16;
  loader_settings.wants_pixels = [this](const data::LoadedGroup& group) { return !is_complete(describe(group)); };
  data::PairLoader loader(dataset, requests, loader_settings);
  Progress progress(title, static_cast<int64_t>(requests.size()), "group", options_.progress);
  GroupTable table;
  int64_t encoded = 0;
  while (const auto batch = loader.next()) {
    const data::LoadedGroup& group = batch->groups.front();
    CachedGroup entry = describe(group);
    add_prompts(group);
    if (group.pixel_values.defined()) {
      encode_pictures(entry, group.pixel_values, group.geometry);
      encode_masks(entry, group.masks);
      if (++encoded % kCommitEvery == 0) cache_.commit();
    } else {
      ++groups_found_;
    }
    table.emplace(group.index, std::move(entry));
    progress.update(batch->next_position);
    if (pending_interrupt()) cache_.commit();
    throw_if_interrupted();
  }
  cache_.commit();
  return table;
}

void CacheFiller::log_counts() const {
  log_info("cache ", cache_.tensors().path().string(), ": encoded ", pictures_encoded_, " pictures, ", prompts_encoded_,
           " prompts, ", masks_encoded_, " masks; the pictures of ", groups_found_, " groups were there");
}

CachedGroup CacheFiller::describe(const data::LoadedGroup& group) const {
  const std::string transform = data::transform_id(transform_, group.size);
  CachedGroup entry{.facts = facts_of(group), .size = group.size, .text = prompt_key(group.prompt)};
  for (size_t item = 0; item < std::min(items_per_group_, group.image_hashes.size()); ++item) {
    const ContentHash& image = group.image_hashes[item];
    entry.pictures.push_back(
        {data::latents_key(image, transform, false, vae_key_), data::latents_key(image, transform, true, vae_key_)});
    if (!group.item_prompts.empty()) entry.item_texts.push_back(prompt_key(group.item_prompts[item]));
    if (group.mask_hashes.empty()) continue;
    entry.masks.push_back(data::mask_key(group.mask_hashes[item], image, transform, encoder_.scale_factor_px()));
  }
  return entry;
}

bool CacheFiller::is_complete(const CachedGroup& entry) const {
  for (const auto& keys : entry.pictures) {
    if (!has_picture(keys[0]) || (flips_ && !has_picture(keys[1]))) return false;
  }
  return std::all_of(entry.masks.begin(), entry.masks.end(),
                     [this](const ContentHash& key) { return cache_.contains(key); });
}

bool CacheFiller::has_picture(const ContentHash& key) const {
  return cache_.contains(key) && (!encoder_.uses_time_ids() || cache_.contains(data::time_ids_key(key)));
}

// One picture at a time: the encoder's activations are the largest thing in memory, and the device is busy anyway.
void CacheFiller::encode_pictures(const CachedGroup& entry, const at::Tensor& pixel_values,
                                  const std::vector<data::ImageGeometry>& geometry) {
  for (size_t item = 0; item < entry.pictures.size(); ++item) {
    const at::Tensor picture = pixel_values.slice(0, static_cast<int64_t>(item), static_cast<int64_t>(item) + 1);
    for (const bool flipped : {false, true}) {
      const ContentHash& key = entry.pictures[item][flipped];
      if (flipped && !flips_) continue;
      if (encoder_.uses_time_ids()) {
        const data::ImageGeometry& place = geometry[item];
        const at::Tensor ids = encoder_.time_ids(flipped ? data::mirrored(place) : place);
        cache_.append_time_ids(data::time_ids_key(key), ids);
      }
      if (cache_.contains(key)) continue;
      const EncodedPictures latents = encoder_.encode_pictures(flipped ? picture.flip({3}) : picture);
      cache_.append_latents({key}, latents.mean.cpu(), latents.std.cpu());
      ++pictures_encoded_;
    }
  }
}

void CacheFiller::encode_masks(const CachedGroup& entry, const at::Tensor& masks) {
  for (size_t item = 0; item < entry.masks.size(); ++item) {
    if (cache_.contains(entry.masks[item])) continue;
    const at::Tensor mask = masks[static_cast<int64_t>(item)].unsqueeze(0);
    cache_.append_masks({entry.masks[item]}, encoder_.encode_masks(mask));
    ++masks_encoded_;
  }
}

}  // namespace prefusion::training

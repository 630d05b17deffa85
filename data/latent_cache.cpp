#include "data/latent_cache.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::data {
namespace {

at::Tensor as_float(const CacheEntry& entry, const char* name) {
  const auto found = entry.find(name);
  return found == entry.end() ? at::Tensor() : found->second.to(at::kFloat);
}

}  // namespace

ContentHash latents_key(const ContentHash& image, std::string_view transform_id, bool is_flipped,
                        std::string_view vae_key) {
  return ContentHasher()
      .add("latents")
      .add(image.view())
      .add(transform_id)
      .add(uint64_t{is_flipped})
      .add(vae_key)
      .finish();
}

ContentHash time_ids_key(const ContentHash& latents_key) {
  return ContentHasher().add("time ids").add(latents_key.view()).finish();
}

ContentHash text_key(std::string_view prompt, std::string_view text_encoder_key) {
  return ContentHasher().add("text").add(prompt).add(text_encoder_key).finish();
}

ContentHash mask_key(const ContentHash& mask, const ContentHash& image, std::string_view transform_id, int64_t factor) {
  return ContentHasher()
      .add("mask")
      .add(mask.view())
      .add(image.view())
      .add(transform_id)
      .add(static_cast<uint64_t>(factor))
      .finish();
}

LatentCache::LatentCache(std::filesystem::path path, TensorCache::Mode mode, LatentCacheOptions options)
    : options_(options), tensors_(std::move(path), mode, options.compression_level) {
  check_usage(options_.storage == at::kFloat || options_.storage == at::kHalf, "the cache stores fp32 or fp16, not ",
              at::toString(options_.storage));
}

std::optional<CachedLatents> LatentCache::find_latents(const ContentHash& key) const {
  const auto entry = tensors_.find(key);
  if (!entry || !entry->contains("mean") || !entry->contains("std")) return std::nullopt;
  return CachedLatents{.mean = as_float(*entry, "mean"), .std = as_float(*entry, "std")};
}

std::optional<text::PromptStates> LatentCache::find_text(const ContentHash& key) const {
  const auto entry = tensors_.find(key);
  if (!entry || !entry->contains("encoder_hidden_states")) return std::nullopt;
  text::PromptStates states{.encoder_hidden_states = as_float(*entry, "encoder_hidden_states"),
                            .pooled = as_float(*entry, "pooled")};
  if (const auto mask = entry->find("encoder_mask"); mask != entry->end()) {
    states.encoder_mask = mask->second.to(at::kBool);
  }
  return states;
}

std::optional<at::Tensor> LatentCache::find_time_ids(const ContentHash& key) const {
  const auto entry = tensors_.find(key);
  if (!entry || !entry->contains("time_ids")) return std::nullopt;
  return entry->at("time_ids");
}

std::optional<at::Tensor> LatentCache::find_mask(const ContentHash& key) const {
  const auto entry = tensors_.find(key);
  if (!entry || !entry->contains("mask")) return std::nullopt;
  return as_float(*entry, "mask");
}

void LatentCache::append_latents(const std::vector<ContentHash>& keys, const at::Tensor& mean, const at::Tensor& std) {
  check_usage(mean.dim() == 4 && mean.sizes() == std.sizes() && mean.size(0) == static_cast<int64_t>(keys.size()),
              "latents for the cache: ", keys.size(), " keys, mean ", shape_text(mean.sizes()), ", std ",
              shape_text(std.sizes()));
  const at::Tensor stored_mean = mean.detach().to(at::kCPU, options_.storage);
  const at::Tensor stored_std = std.detach().to(at::kCPU, options_.storage);
  std::vector<CacheItem> items;
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    items.push_back(CacheItem{.key = keys[i], .entry = {{"mean", stored_mean[row]}, {"std", stored_std[row]}}});
  }
  tensors_.append("latents", items);
}

void LatentCache::append_text(const std::vector<ContentHash>& keys, const text::PromptStates& states) {
  const auto count = static_cast<int64_t>(keys.size());
  check_usage(states.encoder_hidden_states.dim() == 3 && states.encoder_hidden_states.size(0) == count,
              "text states for the cache: ", keys.size(), " keys, states ",
              shape_text(states.encoder_hidden_states.sizes()));
  check_usage(!states.pooled.defined() || states.pooled.size(0) == count,
              "text states for the cache: pooled has another number of rows");
  const std::pair<const char*, at::Tensor> parts[] = {
      {"encoder_hidden_states", states.encoder_hidden_states.to(options_.storage)},
      {"encoder_mask", states.encoder_mask.defined() ? states.encoder_mask.to(at::kByte) : at::Tensor()},
      {"pooled", states.pooled.defined() ? states.pooled.to(options_.storage) : at::Tensor()}};
  std::vector<CacheItem> items;
  for (size_t i = 0; i < keys.size(); ++i) items.push_back(CacheItem{.key = keys[i], .entry = {}});
  for (const auto& [name, part] : parts) {
    if (!part.defined()) continue;
    const at::Tensor stored = part.detach().cpu();
    for (int64_t i = 0; i < count; ++i) items[static_cast<size_t>(i)].entry[name] = stored[i];
  }
  tensors_.append("text", items);
}

void LatentCache::append_time_ids(const ContentHash& key, const at::Tensor& ids) {
  tensors_.append("time_ids", {CacheItem{.key = key, .entry = {{"time_ids", ids}}}});
}

void LatentCache::append_masks(const std::vector<ContentHash>& keys, const at::Tensor& masks) {
  check_usage(masks.dim() == 4 && masks.size(0) == static_cast<int64_t>(keys.size()),
              "masks for the cache: ", keys.size(), " keys, masks ", shape_text(masks.sizes()));
  const at::Tensor stored = masks.detach().to(at::kCPU, at::kFloat);
  std::vector<CacheItem> items;
  for (size_t i = 0; i < keys.size(); ++i) {
    items.push_back(CacheItem{.key = keys[i], .entry = {{"mask", stored[static_cast<int64_t>(i)]}}});
  }
  tensors_.append("masks", items);
}

}  // namespace prefusion::data

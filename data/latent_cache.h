#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tensor_cache.h"
#include "text/prompt_states.h"

namespace prefusion::data {

// The posterior of one picture, before scaling, so that every use can draw a fresh sample.
struct CachedLatents {
  at::Tensor mean;  // [C, h, w]
  at::Tensor std;   // [C, h, w]
};

// What one picture's latents depend on. A key made from other image bytes, another transform or another VAE is another
// key, so that a stale entry is never found.
ContentHash latents_key(const ContentHash& image, std::string_view transform_id, bool is_flipped,
                        std::string_view vae_key);

// SDXL's time ids belong to the latents they describe.
ContentHash time_ids_key(const ContentHash& latents_key);

// What one prompt's states depend on.
ContentHash text_key(std::string_view prompt, std::string_view text_encoder_key);

// What one mask at the size of latents depends on; its picture is part of it because both must have one size.
ContentHash mask_key(const ContentHash& mask, const ContentHash& image, std::string_view transform_id, int64_t factor);

struct LatentCacheOptions {
  at::ScalarType storage = at::kFloat;  // or kHalf: half the size, mean and std rounded to 11 bits
  int compression_level = 1;
};

// Encoded pictures and prompts in one HDF5 file; find() gives fp32.
class LatentCache {
 public:
  LatentCache(std::filesystem::path path, TensorCache::Mode mode, LatentCacheOptions options = {});

  bool contains(const ContentHash& key) const { return tensors_.contains(key); }
  std::optional<CachedLatents> find_latents(const ContentHash& key) const;
  std::optional<text::PromptStates> find_text(const ContentHash& key) const;  // of one prompt: [L, D], [L], [P]
  std::optional<at::Tensor> find_mask(const ContentHash& key) const;          // [1, h, w]
  std::optional<at::Tensor> find_time_ids(const ContentHash& key) const;      // [n]

  // mean, std [N, C, h, w] of N keys.
  void append_latents(const std::vector<ContentHash>& keys, const at::Tensor& mean, const at::Tensor& std);
  // States of N keys.
  void append_text(const std::vector<ContentHash>& keys, const text::PromptStates& states);
  // masks [N, 1, h, w] of N keys, not flipped; kept in fp32.
  void append_masks(const std::vector<ContentHash>& keys, const at::Tensor& masks);
  void append_time_ids(const ContentHash& key, const at::Tensor& ids);
  void commit() { tensors_.commit(); }

  int64_t num_latents() const { return tensors_.size("latents"); }
  int64_t num_prompts() const { return tensors_.size("text"); }
  // For further kinds of entries in the same file.
  TensorCache& tensors() { return tensors_; }

 private:
  LatentCacheOptions options_;
  TensorCache tensors_;
};

}  // namespace prefusion::data

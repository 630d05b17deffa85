#include "training/reward/feature_table.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "data/tensor_cache.h"
#include "nn/layers.h"
#include "training/reward/picture_reader.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

constexpr int64_t kGroupsAtOnce = 32;
constexpr int64_t kPromptsAtOnce = 64;

// Key of everything a tower's pooled output depends on: the projection does not take part.
std::string tower_key(const char* what, const torch::nn::Module& tower) {
  TensorMap weights = nn::tensor_map(tower);
  std::erase_if(weights, [](const auto& entry) { return entry.first.ends_with("_projection.weight"); });
  return weights_key(what, weights);
}

}  // namespace

// Collects features of one kind: those in the cache, and those that are encoded now.
class FeatureTable::Builder {
 public:
  Builder(data::TensorCache& cache, const char* kind) : cache_(cache), kind_(kind) {}

  // Row of a key whose features are here or in the cache; -1 when they are to be encoded.
  int64_t row(const ContentHash& key) {
    const auto known = rows_.find(key);
    if (known != rows_.end()) return known->second;
    const auto entry = cache_.find(key);
    return entry && entry->contains("pooled") ? add(key, entry->at("pooled")) : -1;
  }

  int64_t add(const ContentHash& key, const at::Tensor& features) {
    features_.push_back(features);
    return rows_[key] = static_cast<int64_t>(features_.size()) - 1;
  }

  void encoded(const std::vector<ContentHash>& keys, const at::Tensor& pooled) {
    const at::Tensor kept = pooled.to(at::kFloat).cpu();
    std::vector<data::CacheItem> items;
    for (size_t i = 0; i < keys.size(); ++i) {
      const at::Tensor features = kept[static_cast<int64_t>(i)].clone();
      items.push_back({keys[i], {{"pooled", features}}});
      add(keys[i], features);
    }
    cache_.append(kind_, items);
    num_encoded_ += static_cast<int64_t>(keys.size());
  }

  at::Tensor table(at::Device device) const { return at::stack(features_).to(device); }
  int64_t size() const { return static_cast<int64_t>(features_.size()); }
  int64_t num_encoded() const { return num_encoded_; }

 private:
  data::TensorCache& cache_;
  const char* kind_;
  std::vector<at::Tensor> features_;
  std::unordered_map<ContentHash, int64_t, ContentHashHasher> rows_;
  int64_t num_encoded_ = 0;
};

FeatureTable::FeatureTable(RewardData& data, RewardNetwork& network, const TrainRewardOptions& options)
    : group_size_(data.group_size) {
  at::NoGradGuard no_grad;
  make_folder(options.cache_folder());
  data::TensorCache cache(options.cache_folder() / "features.h5", data::TensorCache::Mode::kWrite);
  Builder pictures(cache, "clip-pictures"), prompts(cache, "clip-prompts");

  const std::string text_key = tower_key("text", *network.clip().text);
  const auto prompt_key = [&](const std::string& prompt) {
    return ContentHasher().add("clip prompt").add(text_key).add(prompt).finish();
  };
  std::vector<std::string> missing;
  for (const auto* groups : {&data.train, &data.validation, &data.test}) {
    for (const RewardGroup& group : *groups) {
      const std::string& prompt = data.prompt(group);
      const auto [entry, is_new] = prompt_rows_.try_emplace(prompt, -1);
      if (!is_new) continue;
      entry->second = prompts.row(prompt_key(prompt));
      if (entry->second < 0) missing.push_back(prompt);
    }
  }
  for (size_t begin = 0; begin < missing.size(); begin += kPromptsAtOnce) {
    const size_t end = std::min(missing.size(), begin + kPromptsAtOnce);
    const std::vector<std::string> part(missing.begin() + begin, missing.begin() + end);
    std::vector<ContentHash> keys;
    for (const std::string& prompt : part) keys.push_back(prompt_key(prompt));
    prompts.encoded(keys, network.pooled_prompts(part));
    for (const std::string& prompt : part) prompt_rows_[prompt] = prompts.row(prompt_key(prompt));
    throw_if_interrupted();
  }

  const std::string vision_key =
      concat(tower_key("vision", *network.clip().vision), ' ', network.clip().preparation.key());
  const auto picture_key = [&](const ContentHash& hash) {
    return ContentHasher().add("clip picture").add(vision_key).add(hash.view()).finish();
  };
  const PictureReader reader(data, network.clip().preparation, options.workers,
                             [&](const ContentHash& hash) { return !cache.contains(picture_key(hash)); });
  std::vector<RewardGroup> all;
  for (const auto* groups : {&data.train, &data.validation, &data.test}) {
    all.insert(all.end(), groups->begin(), groups->end());
  }
  // In the order on disk. The same row may stand in several sources, once an aspect: its pictures are encoded once.
  std::sort(all.begin(), all.end(), [](const RewardGroup& a, const RewardGroup& b) {
    return std::pair(a.source, a.index) < std::pair(b.source, b.index);
  });
  for (const auto& source : data.sources) {
    rows_.emplace_back(source->size() * group_size_, -1);
    weights_.emplace_back(source->size(), 1.0F);
  }

  BadGroups bad(options.max_bad, static_cast<int64_t>(all.size()));
  Progress progress("features", static_cast<int64_t>(all.size()), "group", options.progress);
  const auto part = [&](size_t begin) {
    const size_t end = std::min(all.size(), begin + kGroupsAtOnce);
    return std::vector<RewardGroup>(all.begin() + std::min(begin, end), all.begin() + end);
  };
  std::future<std::vector<ReadGroup>> next = reader.read(part(0));
  for (size_t begin = 0; begin < all.size(); begin += kGroupsAtOnce) {
    const std::vector<RewardGroup> groups = part(begin);
    const std::vector<ReadGroup> read = next.get();
    next = reader.read(part(begin + kGroupsAtOnce));
    std::vector<ContentHash> keys;
    std::vector<at::Tensor> prepared;
    for (const ReadGroup& group : read) {
      for (size_t i = 0; i < group.prepared.size() && group.problem.empty(); ++i) {
        const ContentHash key = picture_key(group.hashes[i]);
        if (!group.prepared[i].defined() || pictures.row(key) >= 0) continue;
        if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
        keys.push_back(key);
        prepared.push_back(group.prepared[i]);
      }
    }
    if (!keys.empty()) pictures.encoded(keys, network.pooled_pictures(at::stack(prepared)));
    for (size_t g = 0; g < read.size(); ++g) {
      if (!read[g].problem.empty()) {
        bad.add(read[g].problem);
        continue;
      }
      weights_[groups[g].source][groups[g].index] = static_cast<float>(read[g].weight);
      for (int64_t i = 0; i < group_size_; ++i) {
        rows_[groups[g].source][groups[g].index * group_size_ + i] = pictures.row(picture_key(read[g].hashes[i]));
      }
    }
    progress.update(static_cast<int64_t>(begin + groups.size()));
    if (pending_interrupt()) {
      next.wait();
      cache.commit();
      throw_if_interrupted();
    }
  }
  next.wait();
  cache.commit();
  log_info("features: ", pictures.size(), " pictures (", pictures.num_encoded(), " encoded now), ", prompts.size(),
           " prompts (", prompts.num_encoded(), " encoded now), in ", cache.path().string());
  check_input(pictures.size() > 0, options.data.front().string(), ": no picture can be read");
  pictures_ = pictures.table(network.device());
  prompts_ = prompts.table(network.device());
  for (auto* groups : {&data.train, &data.validation, &data.test}) {
    std::erase_if(*groups,
                  [&](const RewardGroup& group) { return rows_[group.source][group.index * group_size_] < 0; });
  }
}

at::Tensor FeatureTable::pictures(const std::vector<RewardGroup>& groups) const {
  std::vector<int64_t> rows;
  for (const RewardGroup& group : groups) {
    const auto begin = rows_[group.source].begin() + group.index * group_size_;
    rows.insert(rows.end(), begin, begin + group_size_);
  }
  return pictures_.index_select(0, at::tensor(rows, at::kLong).to(pictures_.device()));
}

at::Tensor FeatureTable::prompts(const std::vector<std::string>& prompts) const {
  std::vector<int64_t> rows;
  for (const std::string& prompt : prompts) rows.push_back(prompt_rows_.at(prompt));
  return prompts_.index_select(0, at::tensor(rows, at::kLong).to(prompts_.device()));
}

}  // namespace prefusion::training

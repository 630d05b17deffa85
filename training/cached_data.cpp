#include "training/cached_data.h"

#include <ATen/ATen.h>

#include <array>
#include <unordered_map>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "data/latent_cache.h"
#include "training/group_order.h"
#include "training/live_data.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

// What a cached group is found by.
struct CachedGroup {
  std::string id;
  ContentHash text;
  std::vector<std::array<ContentHash, 2>> pictures;  // k, [not flipped, flipped]
  std::vector<double> labels;                        // k
};
using GroupTable = std::unordered_map<int64_t, CachedGroup>;  // by index in the data set

// Fills the cache with what a set of groups needs.
class CacheFiller {
 public:
  CacheFiller(data::LatentCache& cache, GroupEncoder& encoder, const AlignOptions& options, size_t items_per_group)
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

  ContentHash prompt_key(const std::string& prompt) const { return data::text_key(prompt, text_key_); }

  void add_prompt(const std::string& prompt) {
    const ContentHash key = prompt_key(prompt);
    if (!cache_.contains(key)) cache_.append_text({key}, encoder_.encode_prompts({prompt}));
  }

  // Encodes what is missing for `indices` and returns where everything is. Groups that cannot be read are left out.
  GroupTable fill(const data::PreferenceDataset& dataset, const std::vector<int64_t>& indices, const char* title) {
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
      add_prompt(group.prompt);
      if (group.pixel_values.defined()) {
        encode(entry, group.pixel_values);
        if (++encoded % kCommitEvery == 0) cache_.commit();
      }
      table.emplace(group.index, std::move(entry));
      progress.update(batch->next_position);
      if (pending_interrupt()) cache_.commit();
      throw_if_interrupted();
    }
    cache_.commit();
    return table;
  }

 private:
  static constexpr int64_t kCommitEvery = 64;  // groups lost at most when the process is killed

  CachedGroup describe(const data::LoadedGroup& group) const {
    const std::string transform = data::transform_id(transform_);
    CachedGroup entry{.id = group.id, .text = prompt_key(group.prompt), .pictures = {}, .labels = group.labels};
    for (size_t item = 0; item < std::min(items_per_group_, group.image_hashes.size()); ++item) {
      const ContentHash& image = group.image_hashes[item];
      entry.pictures.push_back(
          {data::latents_key(image, transform, false, vae_key_), data::latents_key(image, transform, true, vae_key_)});
    }
    return entry;
  }

  bool is_complete(const CachedGroup& entry) const {
    for (const auto& keys : entry.pictures) {
      if (!cache_.contains(keys[0]) || (flips_ && !cache_.contains(keys[1]))) return false;
    }
    return true;
  }

  // One picture at a time: the encoder's activations are the largest thing in memory, and the device is busy anyway.
  void encode(const CachedGroup& entry, const at::Tensor& pixel_values) {
    for (size_t item = 0; item < entry.pictures.size(); ++item) {
      const at::Tensor picture = pixel_values.slice(0, static_cast<int64_t>(item), static_cast<int64_t>(item) + 1);
      for (const bool flipped : {false, true}) {
        const ContentHash& key = entry.pictures[item][flipped];
        if ((flipped && !flips_) || cache_.contains(key)) continue;
        const EncodedPictures latents = encoder_.encode_pictures(flipped ? picture.flip({3}) : picture);
        cache_.append_latents({key}, latents.mean.cpu(), latents.std.cpu());
      }
    }
  }

  data::LatentCache& cache_;
  GroupEncoder& encoder_;
  const AlignOptions& options_;
  size_t items_per_group_;
  std::string vae_key_, text_key_;
  data::TransformOptions transform_;
  bool flips_ = false;
};

// Reads batches back out of the cache.
class CacheReader {
 public:
  CacheReader(std::shared_ptr<data::LatentCache> cache, data::TransformOptions transform, ContentHash empty_prompt,
              const AlignOptions& options, at::Device device)
      : cache_(std::move(cache)),
        transform_(transform),
        empty_prompt_(empty_prompt),
        options_(options),
        device_(device) {}

  EncodedBatch read(const std::vector<std::pair<data::LoadRequest, const CachedGroup*>>& groups,
                    double empty_prompt_rate) const {
    EncodedBatch batch;
    std::vector<at::Tensor> means, stds, texts, labels;
    for (const auto& [request, group] : groups) {
      const DrawKey key{options_.seed, static_cast<uint64_t>(request.index), request.draw};
      const bool flipped = data::decide_transform(transform_, key).is_flipped;
      std::vector<at::Tensor> mean, std;
      for (const auto& keys : group->pictures) {
        const auto latents = cache_->find_latents(keys[flipped]);
        check_has(latents.has_value(), *group);
        mean.push_back(latents->mean);
        std.push_back(latents->std);
      }
      means.push_back(at::stack(mean));
      stds.push_back(at::stack(std));
      const auto text = cache_->find_text(drops_caption(empty_prompt_rate, key) ? empty_prompt_ : group->text);
      check_has(text.has_value(), *group);
      texts.push_back(text->encoder_hidden_states);
      labels.push_back(at::tensor(group->labels, at::kFloat).slice(0, 0, static_cast<int64_t>(group->pictures.size())));
      batch.groups.push_back({request.index, request.draw});
      batch.ids.push_back(group->id);
    }
    batch.mean = at::stack(means).to(device_);
    batch.std = at::stack(stds).to(device_);
    batch.encoder_hidden_states = at::stack(texts).to(device_);
    batch.labels = at::stack(labels).to(device_);
    return batch;
  }

 private:
  // Entries were there when the run began; what is missing now could not be read back.
  void check_has(bool is_found, const CachedGroup& group) const {
    check_input(is_found, cache_->tensors().path().string(), ": the entry of ", group.id,
                " is damaged; delete the file, it is made again");
  }

  std::shared_ptr<data::LatentCache> cache_;
  data::TransformOptions transform_;
  ContentHash empty_prompt_;
  const AlignOptions& options_;
  at::Device device_;
};

class CachedSource : public BatchSource {
 public:
  CachedSource(const CacheReader& reader, const GroupTable& table, std::vector<data::LoadRequest> requests,
               const AlignOptions& options, int64_t start)
      : reader_(reader), table_(table), requests_(std::move(requests)), options_(options), start_(start) {}

  EncodedBatch next(int64_t batch_size) override {
    std::vector<std::pair<data::LoadRequest, const CachedGroup*>> groups;
    while (static_cast<int64_t>(groups.size()) < batch_size) {
      check_run(used_ < requests_.size(), "the training data ended early: too many records are unreadable");
      const data::LoadRequest request = requests_[used_++];
      const auto found = table_.find(request.index);
      if (found != table_.end()) groups.emplace_back(request, &found->second);
    }
    EncodedBatch batch = reader_.read(groups, options_.empty_prompt_rate);
    batch.next_position = start_ + static_cast<int64_t>(used_);
    return batch;
  }

 private:
  const CacheReader& reader_;
  const GroupTable& table_;
  std::vector<data::LoadRequest> requests_;
  const AlignOptions& options_;
  int64_t start_;
  size_t used_ = 0;
};

class CachedData : public EncodedData {
 public:
  CachedData(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
             std::shared_ptr<GroupEncoder> encoder)
      : options_(options),
        split_(std::move(split)),
        scaling_(encoder->scaling()),
        latent_shape_(encoder->latent_shape()) {
    items_ = kind == losses::DataKind::kSingle ? 1 : split_.train->group_size();
    const fs::path folder = options.cache.empty() ? options.output / "cache" : options.cache;
    make_folder(folder);
    auto cache = std::make_shared<data::LatentCache>(folder / "latents.h5", data::TensorCache::Mode::kWrite);
    CacheFiller filler(*cache, *encoder, options, static_cast<size_t>(items_));
    filler.add_prompt("");
    std::vector<int64_t> held_out;
    for (const auto& request : held_out_requests(split_, options)) held_out.push_back(request.index);
    if (!held_out.empty()) held_out_ = filler.fill(*split_.held_out, held_out, "encoding held-out groups");
    GroupOrder order(split_.train, options.seed);
    train_ = filler.fill(*split_.train, order.items_until(num_positions(split_, options)), "encoding groups");
    const ContentHash empty = filler.prompt_key("");
    const auto empty_text = cache->find_text(empty);
    check_input(empty_text.has_value(), (folder / "latents.h5").string(),
                ": the empty prompt's entry is damaged; delete the file, it is made again");
    text_shape_ = empty_text->encoder_hidden_states.sizes().vec();
    reader_ = std::make_unique<CacheReader>(std::move(cache), encoder->transform(), empty, options, encoder->device());
  }

  std::unique_ptr<BatchSource> train_source(int64_t position) override {
    return std::make_unique<CachedSource>(*reader_, train_,
                                          train_requests(split_, options_, position, num_positions(split_, options_)),
                                          options_, position);
  }

  std::vector<EncodedBatch> held_out() override {
    std::vector<EncodedBatch> batches;
    std::vector<std::pair<data::LoadRequest, const CachedGroup*>> groups;
    const auto flush = [&] {
      // Held-out prompts are never dropped: the measurement is of the conditional model.
      if (!groups.empty()) batches.push_back(reader_->read(groups, /*empty_prompt_rate=*/0.0));
      groups.clear();
    };
    for (const auto& request : held_out_requests(split_, options_)) {
      const auto found = held_out_.find(request.index);
      if (found != held_out_.end()) groups.emplace_back(request, &found->second);
      if (static_cast<int64_t>(groups.size()) == options_.batch_size) flush();
    }
    flush();
    return batches;
  }

  int64_t num_train_groups() const override { return split_.train->size(); }
  int64_t items_per_group() const override { return items_; }
  LatentScaling scaling() const override { return scaling_; }
  std::vector<int64_t> latent_shape() const override { return latent_shape_; }
  std::vector<int64_t> text_shape() const override { return text_shape_; }

 private:
  const AlignOptions& options_;
  PreferenceSplit split_;
  int64_t items_ = 0;
  LatentScaling scaling_;
  std::vector<int64_t> latent_shape_, text_shape_;
  GroupTable train_, held_out_;
  std::unique_ptr<CacheReader> reader_;
};

}  // namespace

std::unique_ptr<EncodedData> open_cached_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                              std::shared_ptr<GroupEncoder> encoder) {
  return std::make_unique<CachedData>(options, kind, std::move(split), std::move(encoder));
}

}  // namespace prefusion::training

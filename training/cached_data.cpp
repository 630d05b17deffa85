#include "training/cached_data.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "core/atomic_file.h"
#include "core/error.h"
#include "training/bucket_order.h"
#include "training/cache_filler.h"
#include "training/cache_reader.h"
#include "training/curriculum.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

class CachedSource : public BatchSource {
 public:
  CachedSource(const CacheReader& reader, const GroupTable& table, std::vector<data::LoadRequest> requests,
               const AlignOptions& options, int64_t start)
      : reader_(reader), table_(table), requests_(std::move(requests)), options_(options), start_(start) {}

  EncodedBatch next(int64_t batch_size) override {
    std::vector<CachedRequest> groups;
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
      : EncodedData(std::move(split)),
        options_(options),
        scaling_(encoder->scaling()),
        latent_shape_(encoder->latent_shape()),
        transform_(encoder->transform()) {
    items_ = kind == losses::DataKind::kSingle ? 1 : split_.train->group_size();
    const fs::path folder = options.cache.empty() ? options.output / "cache" : options.cache;
    make_folder(folder);
    cache_ = std::make_shared<data::LatentCache>(folder / "latents.h5", data::TensorCache::Mode::kWrite);
    CacheFiller filler(*cache_, *encoder, options, static_cast<size_t>(items_));
    filler.add_prompt("");
    std::vector<int64_t> held_out;
    for (const auto& request : held_out_requests(split_, options)) held_out.push_back(request.index);
    if (!held_out.empty()) held_out_ = filler.fill(*split_.held_out, held_out, "encoding held-out groups");
    train_ = filler.fill(*split_.train, needed_items(), "encoding groups");
    filler.log_counts();
    if (has_buckets()) {
      std::vector<images::PictureSize> sizes;
      for (const auto& [index, group] : train_) sizes.push_back(group.size);
      log_buckets(sizes, options.batch_size);
    }
    const ContentHash empty = filler.prompt_key("");
    const auto empty_text = cache_->find_text(empty);
    check_input(empty_text.has_value(), (folder / "latents.h5").string(),
                ": the empty prompt's entry is damaged; delete the file, it is made again");
    empty_text_ = empty_text->map([](const at::Tensor& part) { return part.unsqueeze(0); });
    example_time_ids_ = encoder->example_time_ids();
    reader_ = std::make_unique<CacheReader>(cache_, *encoder, empty, options.seed);
  }

  std::unique_ptr<BatchSource> train_source(int64_t position) override {
    return std::make_unique<CachedSource>(*reader_, train_, requests_from(position), options_, position);
  }

  std::vector<EncodedBatch> held_out() override {
    std::vector<EncodedBatch> batches;
    // Held-out prompts are never dropped: the measurement is of the conditional model.
    read_batches(held_out_, held_out_requests(split_, options_), options_.batch_size, /*empty_prompt_rate=*/0.0,
                 [&](const EncodedBatch& batch) { batches.push_back(batch); });
    return batches;
  }

  std::vector<data::LoadRequest> first_draws(int64_t num_groups) const override {
    std::vector<data::LoadRequest> requests = requests_from(0);
    std::erase_if(requests, [this](const data::LoadRequest& request) { return !can_read(request.index); });
    if (std::ssize(requests) > num_groups) requests.resize(static_cast<size_t>(num_groups));
    return requests;
  }

  void for_each_batch(const std::vector<data::LoadRequest>& requests, int64_t batch_size, double empty_prompt_rate,
                      const std::function<void(const EncodedBatch&)>& use) override {
    read_batches(train_, requests, batch_size, empty_prompt_rate, use);
  }

  bool can_read(int64_t index) const override { return train_.contains(index); }
  data::TensorCache& cache() override { return cache_->tensors(); }

  int64_t items_per_group() const override { return items_; }
  LatentScaling scaling() const override { return scaling_; }
  std::vector<int64_t> latent_shape() const override { return latent_shape_; }
  text::PromptStates example_prompt() const override { return empty_text_; }
  at::Tensor example_time_ids() const override { return example_time_ids_; }

 private:
  // Which chunk of a curriculum by hardness a group is in shows only when the model has seen them all.
  std::vector<int64_t> needed_items() const {
    if (!Curriculum::parse(options_.curriculum).is_by_hardness()) {
      return train_order(split_, options_).items_until(num_requests());
    }
    std::vector<int64_t> all(static_cast<size_t>(split_.train->size()));
    std::iota(all.begin(), all.end(), int64_t{0});
    return all;
  }

  bool has_buckets() const { return !transform_.buckets.empty(); }
  int64_t num_requests() const {
    return num_positions(split_, options_) + num_waiting_at_most(transform_, options_.batch_size);
  }

  // The requests of the run from a position on. With buckets a position counts groups in the order of their batches,
  // unreadable ones left out.
  std::vector<data::LoadRequest> requests_from(int64_t position) const {
    if (!has_buckets()) return train_requests(split_, options_, position, num_requests());
    const auto all = train_requests(split_, options_, 0, num_requests());
    auto dealt = joined(full_bucket_batches(all, sizes_of(train_), options_.batch_size));
    dealt.erase(dealt.begin(), dealt.begin() + std::min<int64_t>(position, std::ssize(dealt)));
    return dealt;
  }

  static SizeOfGroup sizes_of(const GroupTable& table) {
    return [&table](int64_t index) {
      const auto found = table.find(index);
      return found == table.end() ? std::nullopt : std::optional(found->second.size);
    };
  }

  void read_batches(const GroupTable& table, const std::vector<data::LoadRequest>& requests, int64_t batch_size,
                    double empty_prompt_rate, const std::function<void(const EncodedBatch&)>& use) const {
    for (const RequestBatch& batch : all_bucket_batches(requests, sizes_of(table), batch_size)) {
      std::vector<CachedRequest> groups;
      for (const auto& request : batch) groups.emplace_back(request, &table.at(request.index));
      use(reader_->read(groups, empty_prompt_rate));
    }
  }

  const AlignOptions& options_;
  int64_t items_ = 0;
  LatentScaling scaling_;
  std::vector<int64_t> latent_shape_;
  data::TransformOptions transform_;
  at::Tensor example_time_ids_;
  text::PromptStates empty_text_;
  std::shared_ptr<data::LatentCache> cache_;
  GroupTable train_, held_out_;
  std::unique_ptr<CacheReader> reader_;
};

}  // namespace

std::unique_ptr<EncodedData> open_cached_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                              std::shared_ptr<GroupEncoder> encoder) {
  return std::make_unique<CachedData>(options, kind, std::move(split), std::move(encoder));
}

}  // namespace prefusion::training

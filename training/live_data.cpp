#include "training/live_data.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "core/device.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "training/bucket_order.h"
#include "training/group_facts.h"

namespace prefusion::training {

data::LoaderOptions loader_options(const AlignOptions& options, const GroupEncoder& encoder) {
  data::LoaderOptions loader;
  loader.batch_size = options.batch_size;
  loader.num_threads = static_cast<int>(options.workers);
  loader.seed = options.seed;
  loader.transform = encoder.transform();
  loader.max_bad.fraction = options.max_bad;
  return loader;
}

namespace {

// Text states of the groups' prompts and, where they have them, of their items'.
void add_prompts(GroupEncoder& encoder, EncodedBatch& batch) {
  batch.prompts = encoder.encode_prompts(batch.prompt_texts);
  if (batch.item_prompt_texts.empty()) return;
  batch.item_prompts = encoder.encode_prompts(batch.item_prompt_texts).map([&](const at::Tensor& part) {
    return part.unflatten(0, {batch.size(), batch.items_per_group()});
  });
}

// [B, k, n]
at::Tensor time_ids_of(const data::GroupBatch& loaded, const GroupEncoder& encoder, int64_t items_per_group) {
  std::vector<at::Tensor> ids;
  for (const auto& group : loaded.groups) {
    for (int64_t item = 0; item < items_per_group; ++item) {
      ids.push_back(encoder.time_ids(group.geometry[static_cast<size_t>(item)]));
    }
  }
  return to_device(at::stack(ids).view({loaded.size(), items_per_group, -1}), encoder.device());
}

}  // namespace

EncodedBatch encode_batch(const data::GroupBatch& loaded, GroupEncoder& encoder, const AlignOptions& options,
                          double empty_prompt_rate, bool keeps_all_items) {
  const at::Tensor pixel_values = keeps_all_items ? loaded.pixel_values : loaded.pixel_values.slice(1, 0, 1);
  const EncodedPictures pictures = encoder.encode_pictures(pixel_values.flatten(0, 1));
  std::vector<GroupFacts> facts;
  std::vector<DrawnFacts> drawn;
  for (const auto& group : loaded.groups) facts.push_back(facts_of(group));
  for (size_t i = 0; i < facts.size(); ++i) {
    drawn.push_back({{loaded.groups[i].index, loaded.groups[i].draw}, &facts[i]});
  }
  EncodedBatch batch = start_batch(drawn, pixel_values.size(1), options.seed, empty_prompt_rate, encoder.device());
  const auto grouped = [&](const at::Tensor& tensor) {
    return tensor.unflatten(0, {loaded.size(), pixel_values.size(1)});
  };
  batch.mean = grouped(pictures.mean);
  batch.std = grouped(pictures.std);
  if (loaded.groups.front().masks.defined()) {
    std::vector<at::Tensor> masks;
    for (const auto& group : loaded.groups) masks.push_back(group.masks.slice(0, 0, pixel_values.size(1)));
    batch.masks = encoder.encode_masks(at::stack(masks));
  }
  add_prompts(encoder, batch);
  if (encoder.uses_time_ids()) batch.time_ids = time_ids_of(loaded, encoder, pixel_values.size(1));
  return batch;
}

namespace {

// Sizes of groups by their index; groups that cannot be read have none.
using GroupSizes = std::unordered_map<int64_t, images::PictureSize>;

// Reads the headers of the pictures of every group that is asked for.
GroupSizes measure_groups(const data::PreferenceDataset& dataset, const std::vector<data::LoadRequest>& requests,
                          data::LoaderOptions options, const char* title, bool shows_progress) {
  std::vector<data::LoadRequest> groups;
  for (const auto& request : requests) groups.push_back({request.index, 0});
  groups = distinct(groups);
  options.batch_size = 1;
  options.max_pending = 64;
  options.wants_pixels = [](const data::LoadedGroup&) { return false; };
  data::PairLoader loader(dataset, groups, options);
  Progress progress(title, std::ssize(groups), "group", shows_progress);
  GroupSizes sizes;
  while (const auto batch = loader.next()) {
    sizes.emplace(batch->groups.front().index, batch->groups.front().size);
    progress.update(batch->next_position);
    throw_if_interrupted();
  }
  return sizes;
}

SizeOfGroup size_in(const GroupSizes& sizes) {
  return [&sizes](int64_t index) {
    const auto found = sizes.find(index);
    return found == sizes.end() ? std::nullopt : std::optional(found->second);
  };
}

std::vector<int64_t> lengths_of(const std::vector<RequestBatch>& batches) {
  std::vector<int64_t> lengths;
  for (const auto& batch : batches) lengths.push_back(std::ssize(batch));
  return lengths;
}

class LiveSource : public BatchSource {
 public:
  LiveSource(const data::PreferenceDataset& dataset, std::vector<data::LoadRequest> requests,
             const data::LoaderOptions& loader, const AlignOptions& options, bool keeps_all_items,
             std::shared_ptr<GroupEncoder> encoder, int64_t position)
      : options_(options),
        keeps_all_items_(keeps_all_items),
        encoder_(std::move(encoder)),
        start_(position),
        loader_(dataset, std::move(requests), loader) {}

  EncodedBatch next(int64_t batch_size) override {
    const auto loaded = loader_.next();
    // A batch of a bucket is smaller by the records that could not be read.
    const bool is_whole = loaded && (loaded->size() == batch_size || options_.buckets);
    check_run(is_whole, "the training data ended early: too many records are unreadable");
    EncodedBatch batch = encode_batch(*loaded, *encoder_, options_, options_.empty_prompt_rate, keeps_all_items_);
    batch.next_position = start_ + loaded->next_position;
    return batch;
  }

 private:
  const AlignOptions& options_;
  bool keeps_all_items_;
  std::shared_ptr<GroupEncoder> encoder_;
  int64_t start_;
  data::PairLoader loader_;
};

[[noreturn]] void fail_without_cache() {
  fail_usage("--no-cache: there is no cache to keep anything in");
}

class LiveData : public EncodedData {
 public:
  LiveData(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
           std::shared_ptr<GroupEncoder> encoder)
      : EncodedData(std::move(split)),
        options_(options),
        keeps_all_items_(kind != losses::DataKind::kSingle),
        encoder_(std::move(encoder)) {}

  std::unique_ptr<BatchSource> train_source(int64_t position) override {
    data::LoaderOptions loader = loader_options(options_, *encoder_);
    std::vector<data::LoadRequest> requests;
    if (options_.buckets) {
      std::vector<RequestBatch> batches = batches_in_order();
      const auto first = std::min<int64_t>(position / options_.batch_size, std::ssize(batches));
      batches.erase(batches.begin(), batches.begin() + first);
      requests = joined(batches);
      loader.batch_requests = lengths_of(batches);
    } else {
      requests = train_requests(split_, options_, position, num_positions(split_, options_));
    }
    return std::make_unique<LiveSource>(*split_.train, std::move(requests), loader, options_, keeps_all_items_,
                                        encoder_, position);
  }

  std::vector<data::LoadRequest> first_draws(int64_t num_groups) const override {
    std::vector<data::LoadRequest> requests =
        options_.buckets ? joined(batches_in_order()) : train_requests(split_, options_, 0, num_groups);
    if (std::ssize(requests) > num_groups) requests.resize(static_cast<size_t>(num_groups));
    return requests;
  }

  std::vector<EncodedBatch> held_out() override {
    std::vector<EncodedBatch> encoded;
    const auto requests = held_out_requests(split_, options_);
    if (requests.empty()) return encoded;
    data::LoaderOptions options = loader_options(options_, *encoder_);
    const GroupSizes sizes = options_.buckets ? measure_groups(*split_.held_out, requests, options,
                                                               "sizes of held-out groups", options_.progress)
                                              : GroupSizes{};
    const auto batches = options_.buckets ? all_bucket_batches(requests, size_in(sizes), options_.batch_size)
                                          : std::vector<RequestBatch>{requests};
    if (options_.buckets) options.batch_requests = lengths_of(batches);
    data::PairLoader loader(*split_.held_out, joined(batches), options);
    // Held-out prompts are never dropped: the measurement is of the conditional model.
    while (const auto loaded = loader.next()) {
      encoded.push_back(encode_batch(*loaded, *encoder_, options_, /*empty_prompt_rate=*/0.0, keeps_all_items_));
    }
    return encoded;
  }

  void for_each_batch(const std::vector<data::LoadRequest>&, int64_t, double,
                      const std::function<void(const EncodedBatch&)>&) override {
    fail_without_cache();
  }
  data::TensorCache& cache() override { fail_without_cache(); }

  int64_t items_per_group() const override { return keeps_all_items_ ? split_.train->group_size() : 1; }
  LatentScaling scaling() const override { return encoder_->scaling(); }
  std::vector<int64_t> latent_shape() const override { return encoder_->latent_shape(); }
  text::PromptStates example_prompt() const override { return encoder_->encode_prompts({""}); }
  at::Tensor example_time_ids() const override { return encoder_->example_time_ids(); }

 private:
  // Batches of the run from its start, each of one bucket. Measured once, in a pass over the data.
  std::vector<RequestBatch> batches_in_order() const {
    const int64_t end =
        num_positions(split_, options_) + num_waiting_at_most(encoder_->transform(), options_.batch_size);
    const std::vector<data::LoadRequest> requests = train_requests(split_, options_, 0, end);
    if (!sizes_) {
      sizes_ = measure_groups(*split_.train, requests, loader_options(options_, *encoder_), "sizes of groups",
                              options_.progress);
      std::vector<images::PictureSize> sizes;
      for (const auto& [index, size] : *sizes_) sizes.push_back(size);
      log_buckets(sizes, options_.batch_size);
    }
    return full_bucket_batches(requests, size_in(*sizes_), options_.batch_size);
  }

  const AlignOptions& options_;
  bool keeps_all_items_;
  std::shared_ptr<GroupEncoder> encoder_;
  mutable std::optional<GroupSizes> sizes_;
};

}  // namespace

std::unique_ptr<EncodedData> open_live_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                            std::shared_ptr<GroupEncoder> encoder) {
  return std::make_unique<LiveData>(options, kind, std::move(split), std::move(encoder));
}

}  // namespace prefusion::training

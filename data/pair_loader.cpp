#include "data/pair_loader.h"

#include <ATen/ATen.h>

#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/logging.h"
#include "data/mask.h"

namespace prefusion::data {
namespace {

// What became of one request: a group, a broken row, or an error that ends the run.
struct Outcome {
  std::optional<LoadedGroup> group;
  std::string bad_row;
  std::exception_ptr error;
};

Outcome load_outcome(const PreferenceDataset& dataset, const LoadRequest& request, const LoaderOptions& options) {
  Outcome outcome;
  try {
    outcome.group = load_group(dataset, request, options);
  } catch (const Error& error) {
    if (error.error_class() == ErrorClass::kInput) {
      outcome.bad_row = error.what();
    } else {
      outcome.error = std::current_exception();
    }
  } catch (...) {
    outcome.error = std::current_exception();
  }
  return outcome;
}

at::Tensor to_tensor(const std::vector<LoadedGroup>& groups, std::vector<double> LoadedGroup::*values) {
  const auto k = static_cast<int64_t>((groups.front().*values).size());
  at::Tensor out = at::empty({static_cast<int64_t>(groups.size()), k}, at::kDouble);
  double* data = out.data_ptr<double>();
  for (const LoadedGroup& group : groups) data = std::copy((group.*values).begin(), (group.*values).end(), data);
  return out;
}

// Pictures and masks into the group.
void decode_items(const std::vector<PreferenceItem>& items, const TransformDecision& decision,
                  const LoaderOptions& options, LoadedGroup& group) {
  std::vector<at::Tensor> pixels, masks;
  for (size_t i = 0; i < items.size(); ++i) {
    try {
      const at::Tensor image = images::decode_image(items[i].encoded, options.image_limits);
      auto transformed = transform_image(image, group.size, decision);
      pixels.push_back(std::move(transformed.pixel_values));
      group.geometry.push_back(transformed.geometry);
      if (!items[i].mask) continue;
      const at::Tensor mask = decode_mask(*items[i].mask, image, options.image_limits);
      masks.push_back(transform_mask(mask, group.size, decision));
    } catch (const Error& error) {
      throw Error(error.error_class(), concat(group.id, ", image ", i, ": ", error.what()));
    }
  }
  group.pixel_values = at::stack(pixels);
  if (!masks.empty()) group.masks = at::stack(masks);
}

GroupBatch collate(std::vector<LoadedGroup> groups, int64_t next_position) {
  GroupBatch batch{.groups = std::move(groups), .next_position = next_position};
  batch.labels = to_tensor(batch.groups, &LoadedGroup::labels);
  batch.ranks = to_tensor(batch.groups, &LoadedGroup::ranks);
  std::vector<at::Tensor> pixels;
  for (const LoadedGroup& group : batch.groups) {
    if (group.pixel_values.defined()) pixels.push_back(group.pixel_values);
  }
  if (pixels.size() == batch.groups.size()) {
    batch.pixel_values = at::stack(pixels);
    for (int64_t i = 0; i < batch.size(); ++i) batch.groups[i].pixel_values = batch.pixel_values[i];
  }
  return batch;
}

}  // namespace

// Threads take requests in order and leave outcomes under their position; the consumer takes those in order.
struct PairLoader::Queue {
  const PreferenceDataset& dataset;
  std::vector<LoadRequest> requests;
  LoaderOptions options;
  int64_t max_pending;

  mutable std::mutex mutex;
  std::condition_variable has_room;
  std::condition_variable has_outcome;
  std::map<int64_t, Outcome> outcomes;
  int64_t next_request = 0;  // position the next thread takes
  int64_t consumed = 0;      // positions the consumer is through with
  int64_t num_bad = 0;
  bool is_stopped = false;
  std::vector<std::thread> threads;

  Queue(const PreferenceDataset& dataset, std::vector<LoadRequest> requests, LoaderOptions options)
      : dataset(dataset), requests(std::move(requests)), options(std::move(options)), num_bad(this->options.num_bad) {
    max_pending = this->options.max_pending > 0 ? this->options.max_pending : 4 * this->options.batch_size;
  }

  void work();
  Outcome wait_for(int64_t position);
  void count_bad(const std::string& message);
};

void PairLoader::Queue::work() {
  std::unique_lock lock(mutex);
  for (;;) {
    has_room.wait(lock, [&] { return is_stopped || next_request < consumed + max_pending; });
    if (is_stopped || next_request >= static_cast<int64_t>(requests.size())) return;
    const int64_t position = next_request++;
    lock.unlock();
    Outcome outcome = load_outcome(dataset, requests[position], options);
    lock.lock();
    outcomes.emplace(position, std::move(outcome));
    has_outcome.notify_one();
  }
}

Outcome PairLoader::Queue::wait_for(int64_t position) {
  std::unique_lock lock(mutex);
  has_outcome.wait(lock, [&] { return outcomes.contains(position); });
  Outcome outcome = std::move(outcomes.extract(position).mapped());
  consumed = position + 1;
  has_room.notify_all();
  return outcome;
}

void PairLoader::Queue::count_bad(const std::string& message) {
  log_warn("skipped: ", message);
  const int64_t total = dataset.size();
  ++num_bad;
  check_input(!options.max_bad.is_exceeded(num_bad, total), num_bad, " of ", total,
              " groups cannot be read, more than is allowed (--max-bad); the last: ", message);
}

PairLoader::PairLoader(const PreferenceDataset& dataset, std::vector<LoadRequest> requests, LoaderOptions options) {
  check_usage(options.batch_size > 0 && options.num_threads > 0, "the loader needs a positive batch size and at least ",
              "one thread, not ", options.batch_size, " and ", options.num_threads);
  queue_ = std::make_unique<Queue>(dataset, std::move(requests), std::move(options));
  for (int i = 0; i < queue_->options.num_threads; ++i)
    queue_->threads.emplace_back([queue = queue_.get()] { queue->work(); });
}

PairLoader::~PairLoader() {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->is_stopped = true;
  }
  queue_->has_room.notify_all();
  for (std::thread& thread : queue_->threads) thread.join();
}

// The groups of a batch of so many requests, without the broken ones.
std::vector<LoadedGroup> PairLoader::take_requests(int64_t count) {
  std::vector<LoadedGroup> groups;
  for (int64_t i = 0; i < count && !is_through(); ++i) take_one(groups);
  return groups;
}

// So many groups, broken ones replaced by what follows; less only at the end.
std::vector<LoadedGroup> PairLoader::take_groups(int64_t count) {
  std::vector<LoadedGroup> groups;
  while (static_cast<int64_t>(groups.size()) < count && !is_through()) take_one(groups);
  return groups;
}

bool PairLoader::is_through() const {
  return queue_->consumed >= static_cast<int64_t>(queue_->requests.size());
}

void PairLoader::take_one(std::vector<LoadedGroup>& groups) {
  Outcome outcome = queue_->wait_for(queue_->consumed);
  if (outcome.error) std::rethrow_exception(outcome.error);
  if (outcome.group) {
    groups.push_back(std::move(*outcome.group));
  } else {
    queue_->count_bad(outcome.bad_row);
  }
}

std::optional<GroupBatch> PairLoader::next() {
  const LoaderOptions& options = queue_->options;
  std::vector<LoadedGroup> groups;
  if (options.batch_requests.empty()) {
    groups = take_groups(options.batch_size);
  } else {
    while (groups.empty() && next_batch_ < options.batch_requests.size()) {
      groups = take_requests(options.batch_requests[next_batch_++]);
    }
  }
  const bool is_full = static_cast<int64_t>(groups.size()) == options.batch_size;
  if (groups.empty() || (options.drop_last && !is_full)) return std::nullopt;
  return collate(std::move(groups), queue_->consumed);
}

int64_t PairLoader::num_bad() const {
  return queue_->num_bad;
}

std::vector<std::string> GroupBatch::prompts() const {
  std::vector<std::string> out;
  for (const LoadedGroup& group : groups) out.push_back(group.prompt);
  return out;
}

std::vector<std::string> GroupBatch::ids() const {
  std::vector<std::string> out;
  for (const LoadedGroup& group : groups) out.push_back(group.id);
  return out;
}

LoadedGroup load_group(const PreferenceDataset& dataset, const LoadRequest& request, const LoaderOptions& options) {
  PreferenceRecord record = dataset.read(request.index);
  const DrawKey key{.seed = options.seed, .item = static_cast<uint64_t>(request.index), .draw = request.draw};
  const TransformDecision decision = decide_transform(options.transform, key);
  LoadedGroup group{.index = request.index,
                    .draw = request.draw,
                    .id = std::move(record.id),
                    .prompt = std::move(record.prompt),
                    .user = std::move(record.user),
                    .weight = record.weight,
                    .is_flipped = decision.is_flipped};
  for (PreferenceItem& item : record.items) {
    group.labels.push_back(item.label);
    group.ranks.push_back(item.rank);
    if (item.score) group.scores.push_back(*item.score);
    if (item.prompt) group.item_prompts.push_back(std::move(*item.prompt));
    group.image_hashes.push_back(hash_content(item.encoded));
    if (item.mask) group.mask_hashes.push_back(hash_content(*item.mask));
  }
  std::vector<std::string_view> encoded;
  for (const PreferenceItem& item : record.items) encoded.emplace_back(item.encoded);
  try {
    group.size = target_size(options.transform, encoded);
  } catch (const Error& error) {
    throw Error(error.error_class(), concat(group.id, ": ", error.what()));
  }
  if (!options.wants_pixels || options.wants_pixels(group)) decode_items(record.items, decision, options, group);
  return group;
}

std::vector<LoadRequest> epoch_requests(const PreferenceDataset& dataset, uint64_t seed, uint64_t epoch,
                                        int64_t position) {
  const std::vector<int64_t> order = dataset.epoch_order(seed, epoch);
  std::vector<LoadRequest> requests;
  for (size_t i = static_cast<size_t>(position); i < order.size(); ++i) {
    requests.push_back(LoadRequest{.index = order[i], .draw = epoch});
  }
  return requests;
}

}  // namespace prefusion::data

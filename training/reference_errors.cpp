#include "training/reference_errors.h"

#include <ATen/ATen.h>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

constexpr const char* kKind = "reference_errors";
constexpr const char* kColumn = "error";

// What the errors of group `i` depend on besides the run.
ContentHash group_key(const std::string& run_key, const EncodedBatch& batch, int64_t i, int64_t timestep) {
  const GroupRef& group = batch.groups[i];
  ContentHasher hash;
  hash.add("reference errors, version 1").add(run_key);
  hash.add(concat(group.item, " ", group.draw, " ", timestep));
  for (const at::Tensor& tensor :
       {batch.mean, batch.std, batch.encoder_hidden_states, batch.item_hidden_states, batch.masks}) {
    if (tensor.defined()) add_tensor(hash, tensor.select(0, i));
  }
  return hash.finish();
}

// The groups `rows` of a batch, as far as a reference pass needs them.
EncodedBatch select_groups(const EncodedBatch& batch, const std::vector<int64_t>& rows) {
  const at::Tensor index = at::tensor(rows, at::kLong).to(batch.mean.device());
  EncodedBatch selected;
  selected.mean = batch.mean.index_select(0, index);
  selected.std = batch.std.index_select(0, index);
  selected.encoder_hidden_states = batch.encoder_hidden_states.index_select(0, index);
  if (batch.item_hidden_states.defined()) selected.item_hidden_states = batch.item_hidden_states.index_select(0, index);
  if (batch.masks.defined()) selected.masks = batch.masks.index_select(0, index);
  for (const int64_t row : rows) selected.groups.push_back(batch.groups[row]);
  return selected;
}

}  // namespace

void ReferenceErrors::prepare(BatchSource& source, const TrainStep& step, int64_t num_groups, int64_t batch_size,
                              bool shows_progress) {
  Progress progress("reference errors", num_groups, "group", shows_progress);
  for (int64_t done = 0; done < num_groups;) {
    const int64_t count = std::min(batch_size, num_groups - done);
    add(source.next(count), step);
    done += count;
    progress.update(done);
    if (pending_interrupt()) cache_.commit();
    throw_if_interrupted();
  }
  cache_.commit();
  log_info("reference errors: computed ", num_computed_, " groups, the other ", num_groups - num_computed_,
           " were in the cache");
}

void ReferenceErrors::add(const EncodedBatch& batch, const TrainStep& step) {
  const at::Tensor timesteps = step.draw_timesteps(batch);
  const at::Tensor timesteps_cpu = timesteps.cpu();
  std::vector<int64_t> missing;
  std::vector<ContentHash> keys;
  for (int64_t i = 0; i < batch.size(); ++i) {
    const GroupRef& group = batch.groups[i];
    if (offsets_.contains({group.item, group.draw})) continue;
    const ContentHash key = group_key(run_key_, batch, i, timesteps_cpu[i].item<int64_t>());
    if (const auto entry = cache_.find(key)) {
      remember(group, entry->at(kColumn));
    } else {
      missing.push_back(i);
      keys.push_back(key);
    }
  }
  if (missing.empty()) return;
  const at::Tensor rows = at::tensor(missing, at::kLong).to(timesteps.device());
  const at::Tensor errors = step.reference_errors(select_groups(batch, missing), timesteps.index_select(0, rows)).cpu();
  num_computed_ += static_cast<int64_t>(missing.size());
  std::vector<data::CacheItem> items;
  for (size_t i = 0; i < missing.size(); ++i) {
    const GroupRef& group = batch.groups[missing[i]];
    const at::Tensor error = errors[static_cast<int64_t>(i)].clone();
    remember(group, error);
    items.push_back({keys[i], {{kColumn, error}}});
  }
  cache_.append(kKind, items);
}

void ReferenceErrors::remember(const GroupRef& group, const at::Tensor& error) {
  offsets_[{group.item, group.draw}] = values_.size();
  values_.insert(values_.end(), error.const_data_ptr<float>(), error.const_data_ptr<float>() + error.numel());
}

at::Tensor ReferenceErrors::find(const EncodedBatch& batch) const {
  const int64_t k = batch.items_per_group();
  at::Tensor errors = at::empty({batch.size(), k}, at::kFloat);
  for (int64_t i = 0; i < batch.size(); ++i) {
    const auto found = offsets_.find({batch.groups[i].item, batch.groups[i].draw});
    check_run(found != offsets_.end(), "the reference error of ", batch.ids.at(i), " was not computed ahead");
    std::copy_n(values_.begin() + static_cast<std::ptrdiff_t>(found->second), k,
                errors.mutable_data_ptr<float>() + i * k);
  }
  return errors.to(batch.mean.device());
}

}  // namespace prefusion::training

#include "training/reference_errors.h"

#include <ATen/ATen.h>

#include "core/content_hash.h"
#include "core/device.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

constexpr const char* kKind = "reference_errors";
constexpr const char* kColumn = "error";
constexpr int64_t kCommitEvery = 1024;  // computed groups lost at most when the process is killed

// What the errors of group `i` depend on besides the run.
ContentHash group_key(const std::string& run_key, const EncodedBatch& batch, int64_t i, int64_t timestep) {
  const GroupRef& group = batch.groups[i];
  ContentHasher hash;
  hash.add("reference errors, version 1").add(run_key);
  hash.add(concat(group.item, " ", group.draw, " ", timestep));
  for (const at::Tensor& tensor :
       {batch.mean, batch.std, batch.prompts.encoder_hidden_states, batch.item_prompts.encoder_hidden_states,
        batch.masks, batch.prompts.pooled, batch.prompts.encoder_mask, batch.item_prompts.pooled,
        batch.item_prompts.encoder_mask, batch.time_ids}) {
    if (tensor.defined()) add_tensor(hash, tensor.select(0, i));
  }
  return hash.finish();
}

// The groups `rows` of a batch, as far as a reference pass needs them.
EncodedBatch select_groups(const EncodedBatch& batch, const std::vector<int64_t>& rows) {
  const at::Tensor index = to_device(at::tensor(rows, at::kLong), batch.mean.device());
  EncodedBatch selected;
  const auto select = [&](const at::Tensor& part) { return part.defined() ? part.index_select(0, index) : part; };
  selected.mean = select(batch.mean);
  selected.std = select(batch.std);
  selected.prompts = batch.prompts.map(select);
  selected.item_prompts = batch.item_prompts.map(select);
  selected.time_ids = select(batch.time_ids);
  selected.masks = select(batch.masks);
  const auto items = static_cast<size_t>(batch.items_per_group());
  for (const int64_t row : rows) {
    selected.groups.push_back(batch.groups[row]);
    if (!batch.prompt_texts.empty()) selected.prompt_texts.push_back(batch.prompt_texts[row]);
    for (size_t item = 0; item < items && !batch.item_prompt_texts.empty(); ++item) {
      selected.item_prompt_texts.push_back(batch.item_prompt_texts[static_cast<size_t>(row) * items + item]);
    }
  }
  return selected;
}

}  // namespace

void ReferenceErrors::prepare(EncodedData& data, const Questions& questions) {
  const auto total = static_cast<int64_t>(questions.draws.size());
  Progress progress(questions.title, total, "group", questions.shows_progress);
  int64_t done = 0, computed_at_commit = 0;
  items_per_group_ = data.items_per_group();
  const auto use = [&](const EncodedBatch& batch) {
    add(batch, questions);
    progress.update(done += batch.size());
    if (num_computed_ - computed_at_commit >= kCommitEvery || pending_interrupt()) {
      cache_.commit();
      computed_at_commit = num_computed_;
    }
    throw_if_interrupted();
  };
  data.for_each_batch(questions.draws, questions.batch_size, questions.empty_prompt_rate, use);
  cache_.commit();
  log_info(questions.title, ": computed ", num_computed_, " groups, the other ", done - num_computed_,
           " were in the cache");
}

void ReferenceErrors::add(const EncodedBatch& batch, const Questions& questions) {
  const at::Tensor timesteps = questions.timesteps(batch);
  const at::Tensor timesteps_cpu = timesteps.cpu();
  std::vector<int64_t> missing;
  std::vector<ContentHash> keys;
  for (int64_t i = 0; i < batch.size(); ++i) {
    const ContentHash key = group_key(run_key_, batch, i, timesteps_cpu[i].item<int64_t>());
    if (const auto entry = cache_.find(key)) {
      remember(batch.groups[i], entry->at(kColumn));
    } else {
      missing.push_back(i);
      keys.push_back(key);
    }
  }
  if (missing.empty()) return;
  const at::Tensor rows = at::tensor(missing, at::kLong).to(timesteps.device());
  const at::Tensor errors = questions.errors_at(select_groups(batch, missing), timesteps.index_select(0, rows)).cpu();
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
  return to_device(errors, batch.mean.device());
}

std::vector<float> ReferenceErrors::find(const data::LoadRequest& draw) const {
  const auto found = offsets_.find({draw.index, draw.draw});
  if (found == offsets_.end()) return {};
  const auto first = values_.begin() + static_cast<std::ptrdiff_t>(found->second);
  return {first, first + items_per_group_};
}

ReferenceErrors::Questions questions_to_start(const TrainStep& step, int64_t batch_size, bool shows_progress) {
  ReferenceErrors::Questions questions{.batch_size = batch_size, .shows_progress = shows_progress};
  questions.errors_at = [&step](const EncodedBatch& batch, const at::Tensor& timesteps) {
    return step.has_reference() ? step.reference_errors(batch, timesteps) : step.policy_errors(batch, timesteps);
  };
  return questions;
}

ReferenceErrors::Questions questions_of_training(const TrainStep& step, std::vector<data::LoadRequest> draws,
                                                 const AlignOptions& options, int64_t batch_size) {
  ReferenceErrors::Questions questions = questions_to_start(step, batch_size, options.progress);
  questions.draws = std::move(draws);
  questions.empty_prompt_rate = options.empty_prompt_rate;
  questions.timesteps = [&step](const EncodedBatch& batch) { return step.draw_timesteps(batch); };
  return questions;
}

}  // namespace prefusion::training

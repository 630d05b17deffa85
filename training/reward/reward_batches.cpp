#include "training/reward/reward_batches.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "core/error.h"

namespace prefusion::training {
namespace {

bool same_groups(const std::vector<RewardGroup>& a, const std::vector<RewardGroup>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const RewardGroup& x, const RewardGroup& y) {
    return x.source == y.source && x.index == y.index;
  });
}

// The prompts, each once, and where each of them stands among those.
struct DistinctPrompts {
  std::vector<std::string> texts;
  std::vector<int64_t> rows;
};

DistinctPrompts distinct_prompts(const std::vector<std::string>& prompts) {
  DistinctPrompts result;
  std::map<std::string, int64_t> places;
  for (const std::string& prompt : prompts) {
    const auto [place, is_new] = places.try_emplace(prompt, static_cast<int64_t>(result.texts.size()));
    if (is_new) result.texts.push_back(prompt);
    result.rows.push_back(place->second);
  }
  return result;
}

}  // namespace

RewardBatches::RewardBatches(RewardData& data, RewardNetwork& network, const TrainRewardOptions& options)
    : data_(data),
      network_(network),
      bad_(options.max_bad, static_cast<int64_t>(data.train.size() + data.validation.size() + data.test.size())) {
  if (network.trains_towers()) {
    reader_ = std::make_unique<PictureReader>(data, network.clip().preparation, options.workers,
                                              [](const ContentHash&) { return true; });
  } else {
    table_ = std::make_unique<FeatureTable>(data, network, options);
  }
}

void RewardBatches::prefetch(const std::vector<RewardGroup>& groups) {
  if (!reader_ || groups.empty()) return;
  if (pending_.valid()) pending_.wait();
  expected_ = groups;
  pending_ = reader_->read(groups);
}

std::vector<ReadGroup> RewardBatches::take(const std::vector<RewardGroup>& groups) {
  if (!pending_.valid() || !same_groups(groups, expected_)) prefetch(groups);
  return pending_.get();
}

// Pooled features of the batch's pictures through the tower; a group that cannot be read counts nothing.
at::Tensor RewardBatches::live_pictures(RewardBatch& batch) {
  const std::vector<ReadGroup> read = take(batch.groups);
  at::Tensor example;
  for (const ReadGroup& group : read) {
    if (group.problem.empty()) example = group.prepared.front();
  }
  check_input(example.defined(), "no picture of a whole batch can be read: ", read.front().problem);
  std::vector<at::Tensor> prepared;
  for (size_t g = 0; g < read.size(); ++g) {
    batch.groups[g].weight *= read[g].weight;
    if (!read[g].problem.empty()) {
      bad_.add(read[g].problem);
      batch.groups[g].weight = 0;
    }
    for (int64_t i = 0; i < data_.group_size; ++i) {
      prepared.push_back(read[g].problem.empty() ? read[g].prepared[i] : at::zeros_like(example));
    }
  }
  return network_.pooled_pictures(at::stack(prepared));
}

RewardBatch RewardBatches::make(const std::vector<RewardGroup>& groups) {
  RewardBatch batch{.groups = groups};
  const int64_t k = data_.group_size;
  for (RewardGroup& group : batch.groups) {
    batch.prompts.push_back(data_.prompt(group));
    if (table_) group.weight *= table_->weight(group);
  }
  const at::Tensor pooled = table_ ? table_->pictures(groups) : live_pictures(batch);
  const DistinctPrompts distinct = distinct_prompts(batch.prompts);
  const at::Tensor pooled_prompts = table_ ? table_->prompts(distinct.texts) : network_.pooled_prompts(distinct.texts);
  batch.pictures = network_.project_pictures(pooled);
  const at::Tensor rows = at::tensor(distinct.rows, at::kLong).to(network_.device());
  batch.prompt_features = network_.project_prompts(pooled_prompts).index_select(0, rows);

  std::vector<double> labels, weights;
  std::vector<int64_t> users, columns;
  for (const RewardGroup& group : batch.groups) {
    const std::vector<double> values = data_.labels(group);
    labels.insert(labels.end(), values.begin(), values.end());
    weights.push_back(group.weight);
    users.insert(users.end(), static_cast<size_t>(k), group.user);
    columns.insert(columns.end(), static_cast<size_t>(k), group.column);
  }
  const auto on_device = [&](const at::Tensor& tensor) { return tensor.to(network_.device()); };
  batch.labels = on_device(at::tensor(labels, at::kDouble).to(at::kFloat).view({-1, k}));
  batch.weights = on_device(at::tensor(weights, at::kDouble).to(at::kFloat));
  const at::Tensor scores = network_.head().forward({.pictures = batch.pictures,
                                                     .prompts = batch.prompt_features.repeat_interleave(k, 0),
                                                     .users = on_device(at::tensor(users, at::kLong))});
  batch.scores = scores.gather(1, on_device(at::tensor(columns, at::kLong)).unsqueeze(1)).view({-1, k});
  return batch;
}

}  // namespace prefusion::training

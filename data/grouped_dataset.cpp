#include "data/grouped_dataset.h"

#include <algorithm>

#include "core/error.h"
#include "core/logging.h"
#include "data/epoch_order.h"

namespace prefusion::data {

void GroupedDataset::add(std::unique_ptr<PreferenceSource> source) {
  const DatasetSummary before = summary_;
  const size_t num_groups = groups_.size();
  const size_t num_items = items_.size();
  sources_.push_back(std::move(source));
  try {
    const auto number = static_cast<uint32_t>(sources_.size() - 1);
    sources_.back()->scan([&](const ScannedRow& row) { add_row(number, row); });
    ++summary_.files;
  } catch (...) {
    summary_ = before;
    groups_.resize(num_groups);
    items_.resize(num_items);
    labels_.resize(num_items);
    ranks_.resize(num_items);
    sources_.pop_back();
    throw;
  }
}

void GroupedDataset::add_row(uint32_t source, const ScannedRow& row) {
  ++summary_.rows;
  switch (row.status) {
    case RowStatus::kMissingLabel: ++summary_.missing_labels; return;
    case RowStatus::kInconsistent: ++summary_.inconsistent; return;
    case RowStatus::kMissingPrompt: ++summary_.missing_prompts; return;
    case RowStatus::kMalformed: ++summary_.malformed; return;
    case RowStatus::kUsable: break;
  }
  const RowPlan plan = plan_groups(row, options_);
  switch (plan.outcome) {
    case PlanOutcome::kTie: ++summary_.ties; return;
    case PlanOutcome::kTooShort: ++summary_.short_lists; return;
    case PlanOutcome::kMissingLabel: ++summary_.missing_labels; return;
    case PlanOutcome::kUsed: break;
  }
  ++summary_.used_rows;
  if (plan.has_tie && options_.keep_ties) ++summary_.ties;
  const uint32_t prompt = intern(row.prompt);
  for (const GroupPlan& group : plan.groups) add_group(source, row.row, prompt, group);
}

void GroupedDataset::add_group(uint32_t source, int64_t row, uint32_t prompt, const GroupPlan& plan) {
  groups_.push_back(Group{.row = row,
                          .first = static_cast<int64_t>(items_.size()),
                          .source = source,
                          .prompt = prompt,
                          .count = static_cast<uint32_t>(plan.items.size())});
  items_.insert(items_.end(), plan.items.begin(), plan.items.end());
  labels_.insert(labels_.end(), plan.labels.begin(), plan.labels.end());
  ranks_.insert(ranks_.end(), plan.ranks.begin(), plan.ranks.end());
}

uint32_t GroupedDataset::intern(std::string_view prompt) {
  const auto [entry, is_new] = prompt_numbers_.try_emplace(std::string(prompt), prompts_.size());
  if (is_new) prompts_.emplace_back(prompt);
  return entry->second;
}

void GroupedDataset::finish(const std::string& where) {
  prompt_numbers_ = {};
  check_input(!groups_.empty(), where, ": holds nothing usable: ", summary_.text(),
              options_.group == GroupKind::kPair && summary_.short_lists == summary_.rows && summary_.rows > 0
                  ? "; it is unpaired, choose an objective for unpaired data"
                  : "");
  check_input(!options_.max_bad.is_exceeded(summary_.malformed, summary_.rows), where, ": ", summary_.malformed,
              " rows that cannot be parsed among ", summary_.rows, ", more than is allowed (--max-bad)");
  thin_lists();
  std::vector<bool> seen(prompts_.size());
  for (const Group& group : groups_) seen[group.prompt] = true;
  summary_.prompts = std::count(seen.begin(), seen.end(), true);
  summary_.groups = size();
}

// Lists of different length become lists of the shortest one's.
void GroupedDataset::thin_lists() {
  uint32_t size = groups_.front().count;
  for (const Group& group : groups_) size = std::min(size, group.count);
  for (Group& group : groups_) {
    if (group.count == size) continue;
    const auto first = group.first;
    const auto last = first + group.count;
    GroupPlan plan{.items = {items_.begin() + first, items_.begin() + last},
                   .labels = {labels_.begin() + first, labels_.begin() + last},
                   .ranks = {ranks_.begin() + first, ranks_.begin() + last}};
    thin_group(plan, size);
    std::copy(plan.items.begin(), plan.items.end(), items_.begin() + first);
    std::copy(plan.labels.begin(), plan.labels.end(), labels_.begin() + first);
    std::copy(plan.ranks.begin(), plan.ranks.end(), ranks_.begin() + first);
    group.count = size;
  }
  summary_.group_size = size;
}

std::string GroupedDataset::id(int64_t index) const {
  const Group& group = groups_.at(index);
  return sources_[group.source]->row_id(group.row);
}

std::vector<double> GroupedDataset::labels(int64_t index) const {
  const Group& group = groups_.at(index);
  return {labels_.begin() + group.first, labels_.begin() + group.first + group.count};
}

PreferenceRecord GroupedDataset::read(int64_t index) const {
  check_usage(index >= 0 && index < size(), "group ", index, " of ", size(), " does not exist");
  const Group& group = groups_[index];
  PreferenceRecord record{.id = id(index), .index = index, .prompt = prompts_[group.prompt]};
  try {
    record.items = sources_[group.source]->read_items(group.row, {items_.data() + group.first, group.count});
  } catch (const Error& error) {
    throw Error(error.error_class(), concat(record.id, ": ", error.what()));
  }
  for (uint32_t i = 0; i < group.count; ++i) {
    record.items[i].label = labels_[group.first + i];
    record.items[i].rank = ranks_[group.first + i];
  }
  return record;
}

std::vector<int64_t> GroupedDataset::epoch_order(uint64_t seed, uint64_t epoch) const {
  std::vector<OrderedGroup> places;
  places.reserve(groups_.size());
  for (const Group& group : groups_) {
    const PreferenceSource& source = *sources_[group.source];
    const auto place = source.place(group.row);
    places.push_back(OrderedGroup{.source = group.source,
                                  .chunk = place.chunk,
                                  .segment = place.segment,
                                  .segment_bytes = place.num_bytes,
                                  .has_random_access = source.has_random_access()});
  }
  return streaming_order(places, options_.window_bytes, seed, epoch);
}

}  // namespace prefusion::data

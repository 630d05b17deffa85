#include "data/grouped_dataset.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/logging.h"
#include "data/epoch_order.h"

namespace prefusion::data {
namespace {

// As they are kept: in fp32.
bool is_finite(double value) {
  return std::isfinite(static_cast<float>(value));
}

// What is wrong with a row's numbers; empty for nothing.
std::string row_problem(const ScannedRow& row) {
  for (const auto& [name, values] : row.scores) {
    for (const double value : values) {
      if (!is_finite(value)) return concat("the score '", name, "' must be finite, found ", value);
    }
  }
  if (row.weight && !(is_finite(*row.weight) && *row.weight >= 0)) {
    return concat("the weight must be finite and not negative, found ", *row.weight);
  }
  return "";
}

}  // namespace

void GroupedDataset::add(std::unique_ptr<PreferenceSource> source) {
  const DatasetSummary before = summary_;
  const size_t num_groups = groups_.size();
  const size_t num_items = items_.size();
  sources_.push_back(std::move(source));
  try {
    const auto number = static_cast<uint32_t>(sources_.size() - 1);
    sources_.back()->scan([&](const ScannedRow& row) { add_row(number, row); });
    for (const auto& name : sources_.back()->other_scores()) summary_.other_scores.insert(name);
    ++summary_.files;
  } catch (...) {
    summary_ = before;
    groups_.resize(num_groups);
    items_.resize(num_items);
    sources_.pop_back();
    throw;
  }
}

void GroupedDataset::add_row(uint32_t source, const ScannedRow& row) {
  ++summary_.rows;
  switch (row.status) {
    case RowStatus::kMissingLabel: ++summary_.missing_labels; return;
    case RowStatus::kInconsistent: ++summary_.inconsistent; return;
    case RowStatus::kMalformed: return skip_malformed(row, row.problem);
    case RowStatus::kUsable: break;
  }
  if (const std::string problem = row_problem(row); !problem.empty()) return skip_malformed(row, problem);
  if (int64_t* count = missing_part(row)) {
    ++*count;
    return;
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
  if (row.weight) ++summary_.weighted_rows;
  if (!row.item_prompts.empty()) ++summary_.item_prompt_rows;
  if (row.has_masks) ++summary_.mask_rows;
  if (!row.user.empty()) ++summary_.user_rows;
  for (const auto& [name, values] : row.scores) ++summary_.score_rows[name];
  for (const GroupPlan& group : plan.groups) add_group(source, row, group);
}

void GroupedDataset::skip_malformed(const ScannedRow& row, const std::string& problem) {
  ++summary_.malformed;
  last_problem_ = concat(sources_.back()->row_id(row.row), ": ", problem);
  log_warn("skipped: ", last_problem_);
}

// The count of what the row lacks; null where it has all that is asked for.
int64_t* GroupedDataset::missing_part(const ScannedRow& row) {
  const bool has_prompt = !row.item_prompts.empty() || (row.prompt && !options_.item_prompts);
  if (!has_prompt) return &summary_.missing_prompts;
  if (row.is_one_picture && !options_.item_prompts) {
    has_one_picture_rows_ = true;
    return &summary_.short_lists;
  }
  if (options_.masks && !row.has_masks) return &summary_.missing_masks;
  if (options_.users && row.user.empty()) return &summary_.missing_users;
  if (!options_.score_name.empty() && !row.scores.contains(options_.score_name)) {
    for (const auto& [name, values] : row.scores) summary_.other_scores.insert(name);
    return &summary_.missing_scores;
  }
  return nullptr;
}

void GroupedDataset::add_group(uint32_t source, const ScannedRow& row, const GroupPlan& plan) {
  groups_.push_back(Group{.row = row.row,
                          .first = static_cast<int64_t>(items_.size()),
                          .source = source,
                          .prompt = intern(row.prompt ? *row.prompt : row.item_prompts[plan.front().item]),
                          .count = static_cast<uint32_t>(plan.size()),
                          .weight = static_cast<float>(row.weight.value_or(1.0)),
                          .user = options_.users ? intern(row.user) : 0});
  // Without a name any score may turn out to be the only one: choose_score() knows.
  const auto score = options_.score_name.empty() ? row.scores.begin() : row.scores.find(options_.score_name);
  for (GroupItem item : plan) {
    if (score != row.scores.end()) item.score = static_cast<float>(score->second[item.item]);
    if (options_.item_prompts) item.prompt = intern(row.item_prompts[item.item]);
    items_.push_back(item);
  }
}

uint32_t GroupedDataset::intern(std::string_view text) {
  const auto [entry, is_new] = prompt_numbers_.try_emplace(std::string(text), prompts_.size());
  if (is_new) prompts_.emplace_back(text);
  return entry->second;
}

void GroupedDataset::finish(const std::string& where) {
  prompt_numbers_ = {};
  const std::string last = last_problem_.empty() ? "" : "; the last malformed: " + last_problem_;
  check_input(!groups_.empty(), where, ": holds nothing usable: ", summary_.text(), why_nothing_is_usable(), last);
  check_input(!options_.max_bad.is_exceeded(summary_.malformed, summary_.rows), where, ": ", summary_.malformed,
              " rows that cannot be parsed among ", summary_.rows, ", more than is allowed (--max-bad)", last);
  thin_lists();
  choose_score();
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
    const auto items = items_of(group);
    GroupPlan plan(items.begin(), items.end());
    thin_group(plan, size);
    std::copy(plan.begin(), plan.end(), items_.begin() + group.first);
    group.count = size;
  }
  summary_.group_size = size;
}

void GroupedDataset::choose_score() {
  const auto& found = summary_.score_rows;
  const bool is_only_one = found.size() == 1 && found.begin()->second == summary_.used_rows;
  if (options_.score_name.empty() && is_only_one) summary_.score_name = found.begin()->first;
}

std::string GroupedDataset::why_nothing_is_usable() const {
  if (has_one_picture_rows_) return "; it prefers prompts to prompts, choose an objective on item prompts";
  if (options_.item_prompts && summary_.missing_prompts > 0) {
    return "; the objective needs a prompt for each image: the field 'prompts' (JSONL) or the columns 'caption_0' and "
           "'caption_1' (Parquet)";
  }
  if (options_.group == GroupKind::kPair && summary_.short_lists == summary_.rows && summary_.rows > 0) {
    return "; it is unpaired, choose an objective for unpaired data";
  }
  if (summary_.missing_masks > 0) {
    return "; masks are asked for: the field 'mask' or 'masks' (JSONL), the columns 'mask_0' and 'mask_1', or 'mask' "
           "(Parquet)";
  }
  if (summary_.missing_users > 0) {
    return "; the objective needs to know who judged a row: the field 'user' (JSONL) or the column 'user_id' (Parquet)";
  }
  if (summary_.missing_scores == 0) return "";
  std::string names;
  for (const auto& name : summary_.other_scores) names += (names.empty() ? "; scores found: " : ", ") + name;
  return names.empty() ? "; no scores were found" : names;
}

std::string GroupedDataset::id(int64_t index) const {
  const Group& group = groups_.at(index);
  return sources_[group.source]->row_id(group.row);
}

std::vector<double> GroupedDataset::labels(int64_t index) const {
  std::vector<double> labels;
  for (const GroupItem& item : items_of(groups_.at(index))) labels.push_back(item.label);
  return labels;
}

std::vector<double> GroupedDataset::scores(int64_t index) const {
  std::vector<double> scores;
  if (summary_.score_name.empty()) return scores;
  for (const GroupItem& item : items_of(groups_.at(index))) scores.push_back(item.score);
  return scores;
}

std::string GroupedDataset::user(int64_t index) const {
  return options_.users ? prompts_[groups_.at(index).user] : "";
}

PreferenceRecord GroupedDataset::read(int64_t index) const {
  check_usage(index >= 0 && index < size(), "group ", index, " of ", size(), " does not exist");
  const Group& group = groups_[index];
  const auto items = items_of(group);
  PreferenceRecord record{.id = id(index), .index = index, .prompt = prompts_[group.prompt]};
  record.user = user(index);
  if (summary_.weighted_rows > 0) record.weight = group.weight;
  std::vector<uint16_t> numbers;
  for (const GroupItem& item : items) numbers.push_back(item.item);
  try {
    record.items = sources_[group.source]->read_items(group.row, numbers);
  } catch (const Error& error) {
    throw Error(error.error_class(), concat(record.id, ": ", error.what()));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    record.items[i].label = items[i].label;
    record.items[i].rank = items[i].rank;
    if (!summary_.score_name.empty()) record.items[i].score = items[i].score;
    if (options_.item_prompts) record.items[i].prompt = prompts_[items[i].prompt];
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

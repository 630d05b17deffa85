#include "data/pickapic_source.h"

#include <arrow/record_batch.h>

#include <array>
#include <cmath>
#include <set>

#include "core/error.h"
#include "data/arrow_value.h"

namespace prefusion::data {
namespace {

ParquetTable::LeafFilter columns(std::set<std::string> names) {
  return [names = std::move(names)](const std::vector<std::string>& path) { return names.contains(path.front()); };
}

// The probability that image 0 is preferred, into the row's labels and status.
void judge(std::optional<double> label_0, std::optional<double> label_1, bool has_label_1_only, bool has_label,
           ScannedRow& row) {
  if (has_label_1_only && label_1) label_0 = 1 - *label_1;
  if (!has_label || !label_0) {
    row.status = RowStatus::kMissingLabel;
    return;
  }
  const bool is_consistent = *label_0 >= 0 && *label_0 <= 1 && (!label_1 || std::abs(*label_0 + *label_1 - 1) < 1e-6);
  if (!is_consistent) row.status = RowStatus::kInconsistent;
  row.labels = {*label_0, 1 - *label_0};
}

using ColumnPair = std::array<std::string, 2>;  // of the two items
using ArrayPair = std::array<const arrow::Array*, 2>;

ArrayPair find_columns(const arrow::RecordBatch& batch, const ColumnPair& names) {
  return {find_column(batch, names[0]), find_column(batch, names[1])};
}

using ScoreColumns = std::vector<std::pair<std::string, ArrayPair>>;  // by name

NamedScores scores_at(const ScoreColumns& score_columns, int64_t i) {
  NamedScores scores;
  for (const auto& [name, columns] : score_columns) {
    for (size_t item = 0; item < columns.size(); ++item) {
      if (const auto value = number_at(columns[item], i)) add_score(name, item, *value, scores);
    }
  }
  keep_complete_scores(2, scores);
  return scores;
}

// Both texts, or none.
std::vector<std::string> texts_at(const ArrayPair& columns, int64_t i) {
  const auto first = text_at(columns[0], i);
  const auto second = text_at(columns[1], i);
  if (!first || !second) return {};
  return {std::string(*first), std::string(*second)};
}

std::string image_in(const arrow::RecordBatch& batch, const std::string& column, int64_t row) {
  const auto bytes = image_at(find_column(batch, column), row);
  check_input(bytes && !bytes->empty(), "column ", column, " holds no image");
  return std::string(*bytes);
}

}  // namespace

PickapicSource::PickapicSource(std::unique_ptr<ParquetTable> table, const DatasetOptions& options)
    : table_(std::move(table)),
      prompt_column_(table_->has_column("caption") ? "caption" : "prompt"),
      options_(options),
      score_names_({options.score_name.empty() ? kUnnamedScore : options.score_name}) {
  const bool has_item_prompts = table_->has_column("caption_0") && table_->has_column("caption_1");
  check_input(table_->has_column(prompt_column_) || has_item_prompts, table_->path().string(),
              ": no column 'caption' (columns found: ", table_->column_names(), ")");
  check_input(table_->has_column("label_0") || table_->has_column("label_1"), table_->path().string(),
              ": no column 'label_0' (columns found: ", table_->column_names(), ")");
  if (table_->has_column("mask_0") && table_->has_column("mask_1")) {
    mask_columns_ = {"mask_0", "mask_1"};
  } else if (table_->has_column("mask")) {
    mask_columns_ = {"mask", "mask"};
  }
  if (options_.all_scores) {
    for (const std::string& name : other_scores()) score_names_.push_back(name);
  }
  std::set<std::string> needed = {"jpg_0", "jpg_1", "model_0", "model_1", "seed_0", "seed_1"};
  if (options_.masks) needed.insert(mask_columns_.begin(), mask_columns_.end());
  table_->select(columns(std::move(needed)));
}

bool PickapicSource::fits(const ParquetTable& table) {
  return table.has_column("jpg_0") && table.has_column("jpg_1");
}

void PickapicSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  const bool has_label_1_only = !table_->has_column("label_0");
  const ColumnPair caption_columns = {"caption_0", "caption_1"};
  std::set<std::string> wanted = {"label_0", "label_1",      "has_label",        "weight",
                                  "user_id", prompt_column_, caption_columns[0], caption_columns[1]};
  for (const std::string& name : score_names_) wanted.insert({name + "_0", name + "_1"});
  wanted.insert(options_.columns.begin(), options_.columns.end());
  table_->scan(columns(std::move(wanted)), [&](int64_t first_row, const arrow::RecordBatch& batch) {
    const arrow::Array* label_0 = find_column(batch, "label_0");
    const arrow::Array* label_1 = find_column(batch, "label_1");
    const arrow::Array* has_label = find_column(batch, "has_label");
    const arrow::Array* weights = find_column(batch, "weight");
    const arrow::Array* users = find_column(batch, "user_id");
    const arrow::Array* prompts = find_column(batch, prompt_column_);
    ScoreColumns scores;
    for (const std::string& name : score_names_) {
      scores.emplace_back(name, find_columns(batch, {name + "_0", name + "_1"}));
    }
    const ArrayPair captions = find_columns(batch, caption_columns);
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      ScannedRow row{.row = first_row + i,
                     .prompt = text_at(prompts, i),
                     .labels_are_probabilities = true,
                     .scores = scores_at(scores, i),
                     .weight = number_or_nan_at(weights, i),
                     .user = name_at(users, i).value_or(""),
                     .item_prompts = texts_at(captions, i),
                     .has_masks = !mask_columns_.empty(),
                     .numbers = named_numbers_at(batch, options_.columns, i)};
      const bool is_labelled = !has_label || number_at(has_label, i).value_or(0) != 0;
      judge(number_at(label_0, i), number_at(label_1, i), has_label_1_only, is_labelled, row);
      visit(row);
    }
  });
}

PreferenceSource::Place PickapicSource::place(int64_t row) const {
  const auto place = table_->place(row);
  return Place{.chunk = place.row_group, .segment = place.segment, .num_bytes = place.num_bytes};
}

std::vector<PreferenceItem> PickapicSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  static const ColumnPair kImages = {"jpg_0", "jpg_1"};
  static const ColumnPair kModels = {"model_0", "model_1"};
  static const ColumnPair kSeeds = {"seed_0", "seed_1"};
  const auto [batch, at] = table_->row(row);
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    out.push_back(PreferenceItem{.encoded = image_in(*batch, kImages.at(item), at),
                                 .model = std::string(text_at(find_column(*batch, kModels[item]), at).value_or(""))});
    out.back().seed = integer_at(find_column(*batch, kSeeds[item]), at);
    if (options_.masks) out.back().mask = image_in(*batch, mask_columns_.at(item), at);
  }
  return out;
}

std::string PickapicSource::row_id(int64_t row) const {
  return concat(table_->path().filename().string(), " row ", row);
}

std::vector<std::string> PickapicSource::other_scores() const {
  std::vector<std::string> names;
  const std::vector<std::string> found = table_->float_columns();
  const std::set<std::string> columns(found.begin(), found.end());
  for (const std::string& column : columns) {
    if (!column.ends_with("_0")) continue;
    const std::string name = column.substr(0, column.size() - 2);
    if (columns.contains(name + "_1") && name != "label" && name != score_names_.front()) names.push_back(name);
  }
  return names;
}

}  // namespace prefusion::data

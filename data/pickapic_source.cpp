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

NamedScores scores_at(const std::array<const arrow::Array*, 2>& columns, int64_t i, const std::string& name) {
  NamedScores scores;
  for (size_t item = 0; item < columns.size(); ++item) {
    if (const auto value = number_at(columns[item], i)) add_score(name, item, *value, scores);
  }
  keep_complete_scores(columns.size(), scores);
  return scores;
}

}  // namespace

PickapicSource::PickapicSource(std::unique_ptr<ParquetTable> table, const std::string& score_name)
    : table_(std::move(table)), score_name_(score_name.empty() ? kUnnamedScore : score_name) {
  prompt_column_ = table_->has_column("caption") ? "caption" : "prompt";
  check_input(table_->has_column(prompt_column_), table_->path().string(),
              ": no column 'caption' (columns found: ", table_->column_names(), ")");
  check_input(table_->has_column("label_0") || table_->has_column("label_1"), table_->path().string(),
              ": no column 'label_0' (columns found: ", table_->column_names(), ")");
  table_->select(columns({"jpg_0", "jpg_1", "model_0", "model_1"}));
}

bool PickapicSource::fits(const ParquetTable& table) {
  return table.has_column("jpg_0") && table.has_column("jpg_1");
}

void PickapicSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  const bool has_label_1_only = !table_->has_column("label_0");
  const std::array<std::string, 2> score_columns = {score_name_ + "_0", score_name_ + "_1"};
  const auto wanted = columns({"label_0", "label_1", "has_label", prompt_column_, score_columns[0], score_columns[1]});
  table_->scan(wanted, [&](int64_t first_row, const arrow::RecordBatch& batch) {
    const arrow::Array* label_0 = find_column(batch, "label_0");
    const arrow::Array* label_1 = find_column(batch, "label_1");
    const arrow::Array* has_label = find_column(batch, "has_label");
    const arrow::Array* prompt = find_column(batch, prompt_column_);
    const std::array<const arrow::Array*, 2> scores = {find_column(batch, score_columns[0]),
                                                       find_column(batch, score_columns[1])};
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      ScannedRow row{.row = first_row + i, .labels_are_probabilities = true};
      const bool is_labelled = !has_label || number_at(has_label, i).value_or(0) != 0;
      judge(number_at(label_0, i), number_at(label_1, i), has_label_1_only, is_labelled, row);
      row.scores = scores_at(scores, i, score_name_);
      const auto text = text_at(prompt, i);
      if (row.status == RowStatus::kUsable && !text) row.status = RowStatus::kMissingPrompt;
      row.prompt = text.value_or("");
      visit(row);
    }
  });
}

PreferenceSource::Place PickapicSource::place(int64_t row) const {
  const auto place = table_->place(row);
  return Place{.chunk = place.row_group, .segment = place.segment, .num_bytes = place.num_bytes};
}

std::vector<PreferenceItem> PickapicSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  static constexpr std::array<const char*, 2> kImages = {"jpg_0", "jpg_1"};
  static constexpr std::array<const char*, 2> kModels = {"model_0", "model_1"};
  const auto [batch, at] = table_->row(row);
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    const auto bytes = image_at(find_column(*batch, kImages.at(item)), at);
    check_input(bytes && !bytes->empty(), "column ", kImages[item], " holds no image");
    out.push_back(PreferenceItem{.encoded = std::string(*bytes),
                                 .model = std::string(text_at(find_column(*batch, kModels[item]), at).value_or(""))});
  }
  return out;
}

std::string PickapicSource::row_id(int64_t row) const {
  return concat(table_->path().filename().string(), " row ", row);
}

}  // namespace prefusion::data

#include "data/ranked_list_source.h"

#include <arrow/record_batch.h>

#include <algorithm>
#include <map>
#include <optional>

#include "core/error.h"
#include "data/arrow_value.h"
#include "data/group_rules.h"

namespace prefusion::data {
namespace {

constexpr int64_t kMaxItems = 4096;

bool holds_image(const std::vector<std::string>& path) {
  return path.front() == "images" && std::find(path.begin() + 1, path.end(), "image") != path.end();
}

// Ranks of a list cell; nothing unless every item has one.
std::optional<std::vector<double>> ranks_of(const ListCell& cell, const arrow::Array* ranks) {
  std::vector<double> out;
  for (int64_t i = cell.begin; i < cell.end; ++i) {
    const auto rank = number_at(ranks, i);
    if (!rank) return std::nullopt;
    out.push_back(*rank);
  }
  return out;
}

// Reward name -> one value an item; rewards that miss an item are left out.
std::map<std::string, std::vector<double>> scores_of(const ListCell& cell, const arrow::Array* scores) {
  std::map<std::string, std::vector<double>> by_name;
  for (int64_t i = cell.begin; i < cell.end; ++i) {
    for (const auto& [name, value] : numbers_at(scores, i)) by_name[name].push_back(value);
  }
  std::erase_if(by_name,
                [&](const auto& entry) { return static_cast<int64_t>(entry.second.size()) != cell.end - cell.begin; });
  return by_name;
}

std::vector<double> mean_win_shares(const std::map<std::string, std::vector<double>>& scores, size_t count) {
  std::vector<double> mean(count, 0.0);
  for (const auto& [name, values] : scores) {
    std::vector<double> badness = values;
    for (double& value : badness) value = -value;
    const std::vector<double> shares = win_shares(badness);
    for (size_t i = 0; i < count; ++i) mean[i] += shares[i] / static_cast<double>(scores.size());
  }
  return mean;
}

void judge(const ListCell& cell, const std::string& score_name, ScannedRow& row) {
  const auto ranks = ranks_of(cell, struct_field(cell.values, "rank"));
  const auto scores = scores_of(cell, struct_field(cell.values, "scores"));
  const auto count = static_cast<size_t>(cell.end - cell.begin);
  if (!score_name.empty()) {
    const auto found = scores.find(score_name);
    if (found == scores.end()) {
      row.status = RowStatus::kMissingLabel;
    } else {
      row.labels = found->second;
    }
    return;
  }
  if (!scores.empty()) {
    row.labels = mean_win_shares(scores, count);
  } else if (ranks) {
    row.labels = win_shares(*ranks);
  } else {
    row.status = RowStatus::kMissingLabel;
  }
  if (ranks) row.ranks = *ranks;
}

}  // namespace

RankedListSource::RankedListSource(std::unique_ptr<ParquetTable> table, std::string score_name)
    : table_(std::move(table)), score_name_(std::move(score_name)) {
  prompt_column_ = table_->has_column("prompt") ? "prompt" : "caption";
  check_input(table_->has_column(prompt_column_), table_->path().string(),
              ": no column 'prompt' (columns found: ", table_->column_names(), ")");
  table_->select(
      [](const auto& path) { return path.front() == "images" && (holds_image(path) || path.back() == "model"); });
}

void RankedListSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  const auto wants = [&](const std::vector<std::string>& path) {
    return path.front() == prompt_column_ || (path.front() == "images" && !holds_image(path));
  };
  table_->scan(wants, [&](int64_t first_row, const arrow::RecordBatch& batch) {
    const arrow::Array* prompts = find_column(batch, prompt_column_);
    const arrow::Array* images = find_column(batch, "images");
    check_input(images, "the structs of column 'images' hold neither 'rank' nor 'scores'");
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      ScannedRow row{.row = first_row + i};
      const auto text = text_at(prompts, i);
      const auto cell = list_at(images, i);
      row.prompt = text.value_or("");
      if (!cell || cell->end - cell->begin > kMaxItems) {
        row.status = RowStatus::kMalformed;
      } else {
        judge(*cell, score_name_, row);
        if (row.status == RowStatus::kUsable && !text) row.status = RowStatus::kMissingPrompt;
      }
      visit(row);
    }
  });
}

PreferenceSource::Place RankedListSource::place(int64_t row) const {
  const auto place = table_->place(row);
  return Place{.chunk = place.row_group, .segment = place.segment, .num_bytes = place.num_bytes};
}

std::vector<PreferenceItem> RankedListSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  const auto [batch, at] = table_->row(row);
  const auto cell = list_at(find_column(*batch, "images"), at);
  check_input(cell.has_value(), "column 'images' holds no list");
  const arrow::Array* images = struct_field(cell->values, "image");
  const arrow::Array* models = struct_field(cell->values, "model");
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    const int64_t position = cell->begin + item;
    check_input(position < cell->end, "the list has ", cell->end - cell->begin, " items, number ", item, " is wanted");
    const auto bytes = image_at(images, position);
    check_input(bytes && !bytes->empty(), "item ", item, " holds no image");
    out.push_back(
        PreferenceItem{.encoded = std::string(*bytes), .model = std::string(text_at(models, position).value_or(""))});
  }
  return out;
}

std::string RankedListSource::row_id(int64_t row) const {
  return concat(table_->path().filename().string(), " row ", row);
}

}  // namespace prefusion::data

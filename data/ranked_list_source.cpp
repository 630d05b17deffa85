#include "data/ranked_list_source.h"

#include <arrow/record_batch.h>

#include <algorithm>
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

// Ranks of a list cell; empty unless every item has one.
std::vector<double> ranks_of(const ListCell& cell, const arrow::Array* ranks) {
  std::vector<double> out;
  for (int64_t i = cell.begin; i < cell.end; ++i) {
    const auto rank = number_at(ranks, i);
    if (!rank) return {};
    out.push_back(*rank);
  }
  return out;
}

NamedScores scores_of(const ListCell& cell, const arrow::Array* scores) {
  NamedScores by_name;
  const auto count = static_cast<size_t>(cell.end - cell.begin);
  for (size_t item = 0; item < count; ++item) {
    for (const auto& [name, value] : numbers_at(scores, cell.begin + static_cast<int64_t>(item))) {
      add_score(name, item, value, by_name);
    }
  }
  keep_complete_scores(count, by_name);
  return by_name;
}

void judge(const std::optional<ListCell>& cell, const std::string& score_name, ScannedRow& row) {
  const int64_t count = cell ? cell->end - cell->begin : 0;
  if (!cell || count > kMaxItems) {
    row.status = RowStatus::kMalformed;
    row.problem = cell ? concat("the list has ", count, " images, at most ", kMaxItems, " are read")
                       : "column 'images' holds no list";
    return;
  }
  row.scores = scores_of(*cell, struct_field(cell->values, "scores"));
  judge_by_scores(ranks_of(*cell, struct_field(cell->values, "rank")), score_name, row);
}

}  // namespace

RankedListSource::RankedListSource(std::unique_ptr<ParquetTable> table, const DatasetOptions& options)
    : table_(std::move(table)), prompt_column_(table_->has_column("prompt") ? "prompt" : "caption"), options_(options) {
  check_input(table_->has_column(prompt_column_), table_->path().string(),
              ": no column 'prompt' (columns found: ", table_->column_names(), ")");
  table_->select([this](const auto& path) {
    const bool is_item =
        path.front() == "images" && (holds_image(path) || path.back() == "model" || path.back() == "seed");
    return is_item || (options_.masks && path.front() == "mask");
  });
}

void RankedListSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  const auto wants = [&](const std::vector<std::string>& path) {
    return path.front() == prompt_column_ || path.front() == "weight" || path.front() == "user_id" ||
           options_.columns.contains(path.front()) || (path.front() == "images" && !holds_image(path));
  };
  const bool has_masks = table_->has_column("mask");
  table_->scan(wants, [&](int64_t first_row, const arrow::RecordBatch& batch) {
    const arrow::Array* prompts = find_column(batch, prompt_column_);
    const arrow::Array* weights = find_column(batch, "weight");
    const arrow::Array* users = find_column(batch, "user_id");
    const arrow::Array* images = find_column(batch, "images");
    check_input(images, "the structs of column 'images' hold neither 'rank' nor 'scores'");
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      ScannedRow row{.row = first_row + i,
                     .prompt = text_at(prompts, i),
                     .weight = number_or_nan_at(weights, i),
                     .user = name_at(users, i).value_or(""),
                     .has_masks = has_masks,
                     .numbers = named_numbers_at(batch, options_.columns, i)};
      judge(list_at(images, i), options_.score_name, row);
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
  std::optional<std::string> mask;
  if (options_.masks) {
    const auto bytes = image_at(find_column(*batch, "mask"), at);
    check_input(bytes && !bytes->empty(), "column 'mask' holds no image");
    mask = *bytes;
  }
  const arrow::Array* images = struct_field(cell->values, "image");
  const arrow::Array* models = struct_field(cell->values, "model");
  const arrow::Array* seeds = struct_field(cell->values, "seed");
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    const int64_t position = cell->begin + item;
    check_input(position < cell->end, "the list has ", cell->end - cell->begin, " items, number ", item, " is wanted");
    const auto bytes = image_at(images, position);
    check_input(bytes && !bytes->empty(), "item ", item, " holds no image");
    out.push_back(PreferenceItem{.encoded = std::string(*bytes),
                                 .model = std::string(text_at(models, position).value_or("")),
                                 .mask = mask,
                                 .seed = integer_at(seeds, position)});
  }
  return out;
}

std::string RankedListSource::row_id(int64_t row) const {
  return concat(table_->path().filename().string(), " row ", row);
}

}  // namespace prefusion::data

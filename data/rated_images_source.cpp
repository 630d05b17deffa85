#include "data/rated_images_source.h"

#include <arrow/record_batch.h>
#include <arrow/type.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "data/arrow_value.h"
#include "data/group_rules.h"
#include "data/json_rows.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxItems = 4096;
constexpr size_t kMaxImageBytes = size_t{256} << 20;
constexpr int64_t kBytesPerPicture = 256 << 10;  // what a picture file is taken to weigh, for the shuffle window
constexpr const char* kRatingSuffix = "_rating";

bool is_rating(const std::string& column) {
  return column.ends_with(kRatingSuffix);
}

}  // namespace

RatedImagesSource::RatedImagesSource(std::unique_ptr<ParquetTable> table, DatasetOptions options)
    : path_(table->path()),
      table_(std::move(table)),
      holds_pictures_(!table_->has_column("image_path")),
      options_(std::move(options)) {
  check_input(table_->has_column("prompt") || table_->has_column("caption"), path_.string(),
              ": no column 'prompt' (columns found: ", table_->column_names(), ")");
  table_->select([](const std::vector<std::string>& leaf) { return leaf.front() == "image"; });
}

RatedImagesSource::RatedImagesSource(std::filesystem::path json_path, DatasetOptions options)
    : path_(std::move(json_path)), options_(std::move(options)) {}

bool RatedImagesSource::fits(const ParquetTable& table) {
  return table.has_column("prompt_id") && (table.has_column("image_path") || table.has_column("image"));
}

bool RatedImagesSource::fits(const Json& row) {
  return row.is_object() && row.contains("prompt_id") && row.contains("image_path") && row["image_path"].is_string();
}

std::vector<RatedImagesSource::RatedImage> RatedImagesSource::read_parquet() {
  std::vector<RatedImage> rows;
  const auto wanted = [](const std::vector<std::string>& leaf) { return leaf.front() != "image"; };
  table_->scan(wanted, [&](int64_t first_row, const arrow::RecordBatch& batch) {
    const arrow::Array* prompts = find_column(batch, "prompt");
    if (!prompts) prompts = find_column(batch, "caption");
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      RatedImage image{.row = first_row + i,
                       .path = std::string(text_at(find_column(batch, "image_path"), i).value_or("")),
                       .prompt_id = name_at(find_column(batch, "prompt_id"), i).value_or(""),
                       .prompt = std::string(text_at(prompts, i).value_or("")),
                       .user = name_at(find_column(batch, "user_id"), i).value_or(""),
                       .model = std::string(text_at(find_column(batch, "model"), i).value_or("")),
                       .seed = integer_at(find_column(batch, "seed"), i),
                       .rank = number_at(find_column(batch, "rank"), i),
                       .numbers = named_numbers_at(batch, options_.columns, i)};
      std::set<std::string> ratings;
      for (const std::string& name : batch.schema()->field_names()) {
        if (is_rating(name)) ratings.insert(name);
      }
      image.ratings = named_numbers_at(batch, ratings, i);
      if (!holds_pictures_ && image.path.empty()) image.problem = "image_path is empty";
      rows.push_back(std::move(image));
    }
  });
  return rows;
}

RatedImagesSource::RatedImage RatedImagesSource::parse_json_row(int64_t row, std::string_view text) const {
  const Json json = parse_json(text, "the row");
  check_input(fits(json), "a row must have prompt_id and image_path, found ", json.dump().substr(0, 60));
  const auto name_of = [&](std::initializer_list<const char*> keys) -> std::string {
    for (const char* key : keys) {
      if (!json.contains(key) || json[key].is_null()) continue;
      check_input(json[key].is_string() || json[key].is_number_integer(), key, " must be text, found ",
                  json[key].dump().substr(0, 60));
      return json[key].is_string() ? json[key].get<std::string>() : json[key].dump();
    }
    return "";
  };
  RatedImage image{.row = row,
                   .path = name_of({"image_path"}),
                   .prompt_id = name_of({"prompt_id"}),
                   .prompt = name_of({"prompt", "caption"}),
                   .user = name_of({"user_id", "user", "user_hash"}),
                   .model = name_of({"model"})};
  if (json.contains("seed") && json["seed"].is_number_integer()) image.seed = json["seed"].get<int64_t>();
  for (const auto& [key, value] : json.items()) {
    if (!value.is_number()) continue;
    const double number = value.get<double>();
    if (key == "rank") image.rank = number;
    if (is_rating(key)) image.ratings[key] = number;
    if (options_.columns.contains(key)) image.numbers[key] = number;
  }
  return image;
}

std::vector<RatedImagesSource::RatedImage> RatedImagesSource::read_json() {
  std::vector<RatedImage> rows;
  JsonRows(path_).scan([&](int64_t row, std::string_view text) {
    try {
      rows.push_back(parse_json_row(row, text));
    } catch (const Error& error) {
      rows.push_back(RatedImage{.row = row, .problem = error.what()});
    }
  });
  return rows;
}

// Order and labels: the ranks where every picture has one, else the named rating, else the mean of the ratings.
ScannedRow RatedImagesSource::judge(const List& list) const {
  ScannedRow row{.prompt = list.front().prompt, .user = list.front().user, .numbers = list.front().numbers};
  if (list.front().prompt.empty()) row.prompt = std::nullopt;
  std::vector<double> ranks;
  for (size_t item = 0; item < list.size(); ++item) {
    for (const auto& [name, value] : list[item].ratings) add_score(name, item, value, row.scores);
    if (list[item].rank) ranks.push_back(*list[item].rank);
    if (list[item].problem.empty()) continue;
    row.status = RowStatus::kMalformed;
    row.problem = list[item].problem;
  }
  if (list.size() > kMaxItems) {
    row.status = RowStatus::kMalformed;
    row.problem = concat("prompt_id '", list.front().prompt_id, "' has ", list.size(), " pictures, at most ", kMaxItems,
                         " are read");
  }
  keep_complete_scores(list.size(), row.scores);
  if (row.status != RowStatus::kUsable) return row;
  if (!options_.score_name.empty()) {
    judge_by_scores({}, options_.score_name, row);
  } else if (ranks.size() == list.size()) {
    judge_by_ranks(std::move(ranks), row);
  } else {
    judge_by_mean_score(row);
  }
  return row;
}

void RatedImagesSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  lists_.clear();
  std::unordered_map<std::string, size_t> numbers;  // of the list of a prompt_id and user
  for (RatedImage& image : table_ ? read_parquet() : read_json()) {
    // A row that cannot be understood is a list of its own: the others of its prompt stay.
    const bool is_sound = image.problem.empty();
    const std::string key =
        is_sound ? image.prompt_id + '\0' + image.user : concat(image.row, std::string_view("\0row", 4));
    const auto [entry, is_new] = numbers.try_emplace(key, lists_.size());
    if (is_new) lists_.emplace_back();
    lists_[entry->second].push_back(std::move(image));
  }
  for (size_t i = 0; i < lists_.size(); ++i) {
    ScannedRow row = judge(lists_[i]);
    row.row = static_cast<int64_t>(i);
    visit(row);
  }
}

PreferenceSource::Place RatedImagesSource::place(int64_t row) const {
  const List& list = lists_.at(row);
  if (!holds_pictures_) return Place{.segment = row, .num_bytes = kBytesPerPicture * static_cast<int64_t>(list.size())};
  const auto place = table_->place(list.front().row);
  return Place{.chunk = place.row_group, .segment = place.segment, .num_bytes = place.num_bytes};
}

std::vector<PreferenceItem> RatedImagesSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  const List& list = lists_.at(row);
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    const RatedImage& image = list.at(item);
    PreferenceItem read{.model = image.model, .seed = image.seed};
    if (holds_pictures_) {
      const auto [batch, at] = table_->row(image.row);
      const auto bytes = image_at(find_column(*batch, "image"), at);
      check_input(bytes && !bytes->empty(), "row ", image.row, " holds no image");
      read.encoded = *bytes;
    } else {
      read.encoded = read_file(find_named_file(path_, image.path), kMaxImageBytes);
    }
    out.push_back(std::move(read));
  }
  return out;
}

std::string RatedImagesSource::row_id(int64_t row) const {
  const RatedImage& first = lists_.at(row).front();
  return concat(path_.filename().string(), " prompt_id ", first.prompt_id.empty() ? "?" : first.prompt_id,
                " (from row ", first.row, ")");
}

}  // namespace prefusion::data

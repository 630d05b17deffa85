#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/dataset.h"
#include "data/parquet_table.h"
#include "data/source.h"

namespace prefusion::data {

// Tables with a row a picture, as ImageRewardDB (Xu et al. 2023) has them, in Parquet or JSON: `prompt_id`, `prompt`,
// `image_path` (or the picture itself in the column `image`), `rank` (lower is better), ratings in columns that end in
// _rating, each a score of its column's name; `model`, `seed` and `user_id` where present. The rows of one prompt_id
// are a list, in file order; rows of several users are a list each. Without ranks the label is the mean of the ratings.
class RatedImagesSource : public PreferenceSource {
 public:
  RatedImagesSource(std::unique_ptr<ParquetTable> table, DatasetOptions options);
  RatedImagesSource(std::filesystem::path json_path, DatasetOptions options);

  static bool fits(const ParquetTable& table);
  static bool fits(const nlohmann::json& first_row);
  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return !holds_pictures_; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string row_id(int64_t row) const override;
  std::string item_name(int64_t row, uint16_t item) const override { return lists_.at(row).at(item).path; }

 private:
  // A row of the table.
  struct RatedImage {
    int64_t row = 0;
    std::string path;
    std::string prompt_id;
    std::string prompt;
    std::string user;
    std::string model;
    std::optional<int64_t> seed;
    std::optional<double> rank;
    std::map<std::string, double> ratings;
    std::map<std::string, double> numbers;
    std::string problem;  // of a row that cannot be understood
  };
  using List = std::vector<RatedImage>;

  std::vector<RatedImage> read_parquet();
  std::vector<RatedImage> read_json();
  RatedImage parse_json_row(int64_t row, std::string_view text) const;
  ScannedRow judge(const List& list) const;

  std::filesystem::path path_;
  std::unique_ptr<ParquetTable> table_;  // null for JSON
  bool holds_pictures_ = false;          // in the table itself
  DatasetOptions options_;
  std::vector<List> lists_;
};

}  // namespace prefusion::data

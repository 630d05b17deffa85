#pragma once

#include <memory>
#include <string>

#include "data/dataset.h"
#include "data/parquet_table.h"
#include "data/source.h"

namespace prefusion::data {

// Ranked lists in Parquet: `prompt` (or `caption`) and `images`, a list of struct {`image` bytes, `model`, `seed`,
// `scores` map from reward to value, `rank`}; every field but the image may be absent; `weight`, `user_id` and `mask`
// where present are those of the whole list. What they say of order and labels: judge_by_scores().
class RankedListSource : public PreferenceSource {
 public:
  RankedListSource(std::unique_ptr<ParquetTable> table, const DatasetOptions& options);

  static bool fits(const ParquetTable& table) { return table.has_column("images"); }
  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return false; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string row_id(int64_t row) const override;

 private:
  std::unique_ptr<ParquetTable> table_;
  const char* prompt_column_;
  DatasetOptions options_;
};

}  // namespace prefusion::data

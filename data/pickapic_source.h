#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/parquet_table.h"
#include "data/source.h"

namespace prefusion::data {

// Pick-a-Pic v1/v2 Parquet (Kirstain et al. 2023) and what others write in its layout: jpg_0, jpg_1, caption, label_0;
// label_1, has_label, model_0 and model_1 where present, in any order and of any fitting type.
// label_0 is 1 when image 0 is preferred, 0 when image 1 is, 0.5 for a tie, and a probability between. Reward scores
// are the columns <score_name>_0 and <score_name>_1, without a name score_0 and score_1; `weight` is the pair's,
// caption_0 and caption_1 are the items' own prompts, mask_0 and mask_1, or `mask`, their masks, `user_id` who judged,
// seed_0 and seed_1 what they were generated from.
class PickapicSource : public PreferenceSource {
 public:
  PickapicSource(std::unique_ptr<ParquetTable> table, const DatasetOptions& options);

  static bool fits(const ParquetTable& table);
  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return false; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string row_id(int64_t row) const override;
  std::vector<std::string> other_scores() const override;

 private:
  std::unique_ptr<ParquetTable> table_;
  std::string prompt_column_;
  DatasetOptions options_;
  std::vector<std::string> score_names_;   // that scan() gives
  std::vector<std::string> mask_columns_;  // of each item; empty where there are none
};

}  // namespace prefusion::data

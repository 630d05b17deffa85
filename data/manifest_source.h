#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/json_rows.h"
#include "data/source.h"

namespace prefusion::data {

// JSON rows that name image files:
//   JSONL manifest   {"prompt", "images": [paths], "scores" (higher better) | "ranks" (lower better) | "label"}; a
//                    single label is Pick-a-Pic's label_0, a list of labels is one value an image. Scores are a list
//                    of numbers, a list of {name: number}, or {name: list}; beside a label they order nothing
//                    instead of, or beside, the prompt: "prompts", one an image
//   text preference  {"image", "prompts": [best first]}, or with a "label"
//   unpaired JSONL   {"prompt", "image", "label": 1 / true desirable, 0 / false undesirable | "score": number}
//   HPDv2 train.json [{"prompt", "file_path": [2 paths], "human_preference" | "pap_pref": [1, 0]}, ...]
//   HPDv2 test.json  [{"prompt", "image_path": [paths], "rank": [...]}, ...]; where users are asked for, one row each
//   of
//                    "raw_annotations": [{"rank", "user_hash"}]
//   ImageReward test.json [{"prompt", "generations": [paths], "ranking": [...]}, ...]
//   ratings by aspect {"prompt", "images", "ratings": as scores}: each aspect is a score, the label is their mean
// Beside them "weight", "model(s)", "seed(s)", and "masks": [paths] or "mask": a path for all images.
// Any of them as JsonRows has them.
class ManifestSource : public PreferenceSource {
 public:
  ManifestSource(std::filesystem::path path, DatasetOptions options)
      : rows_(std::move(path)), options_(std::move(options)) {}

  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return true; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string item_name(int64_t row, uint16_t item) const override;
  std::string row_id(int64_t row) const override { return rows_.row_id(row); }

 private:
  JsonRows rows_;
  DatasetOptions options_;
};

}  // namespace prefusion::data

#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "data/dataset.h"
#include "data/source.h"

namespace prefusion::data {

// JSON rows that name image files:
//   JSONL manifest   {"prompt", "images": [paths], "scores" (higher better) | "ranks" (lower better) | "label"}; a
//                    single label is Pick-a-Pic's label_0, a list of labels is one value an image. Scores are a list
//                    of numbers, a list of {name: number}, or {name: list}; beside a label they order nothing
//                    instead of, or beside, the prompt: "prompts", one an image
//   text preference  {"image", "prompts": [best first]}, or with a "label"
//   unpaired JSONL   {"prompt", "image", "label": 1 / true desirable, 0 / false undesirable | "score": number}
//   HPDv2 train.json [{"prompt", "file_path": [2 paths], "human_preference": [1, 0]}, ...]
//   HPDv2 test.json  [{"prompt", "image_path": [paths], "rank": [...]}, ...]
// Beside them "weight", and "masks": [paths] or "mask": a path for all images.
// Any of them one a line (.jsonl) or in one array (.json). Paths are relative to the manifest's folder, or to the
// folder there that is called like the manifest (HPDv2 keeps its images in train/ and test/). Only offsets are kept in
// memory.
class ManifestSource : public PreferenceSource {
 public:
  ManifestSource(std::filesystem::path path, DatasetOptions options);

  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return true; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string row_id(int64_t row) const override;

 private:
  struct Extent {
    int64_t begin = 0;
    int64_t size = 0;
  };

  std::vector<Extent> find_lines(const std::string& text) const;
  std::vector<Extent> find_elements(const std::string& text) const;
  nlohmann::json parse_row(int64_t row) const;
  std::filesystem::path find_image(const std::string& name) const;

  std::filesystem::path path_;
  DatasetOptions options_;
  std::vector<Extent> rows_;
  std::vector<int64_t> line_numbers_;  // of JSONL rows, from 1; empty for an array
};

}  // namespace prefusion::data

#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/filters/convert.h"
#include "data/filters/selection.h"
#include "tools/text_embedder.h"

namespace prefusion::tools {

// What `prefusion filter` is asked for, as the flags have it (docs/curation.md).
struct FilterRequest {
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;
  std::filesystem::path scores;
  std::string score_name;
  std::string max_bad = "1%";
  // Conversion.
  std::string to;  // pairs, lists, unpaired; empty: as the data is
  std::string list_pairs = "all";
  std::string ties = "drop";
  std::string threshold;
  // Rules.
  std::vector<std::string> include, exclude, require, min_margin, max_margin;
  std::vector<std::string> agree;
  double min_agreement = 1;
  std::string flips = "keep";
  std::vector<std::string> flip_scores;
  double flip_strength = 1;
  int64_t min_size = 0;
  bool drop_same_pictures = false;
  std::string duplicates = "keep";
  int hash_distance = 6;
  int64_t max_per_prompt = 0;
  // Selection.
  std::string keep;
  std::string select = "top";
  std::string margin_score;
  bool absolute_margin = false;
  std::string quality_column;
  data::filters::ImportanceOptions importance;
  std::string normalise = "zscore";
  TextEmbedderOptions texts;
  uint64_t seed = 0;
  bool progress = true;
};

// Everything that is wrong with the request by itself, in one usage error.
void validate(const FilterRequest& request);

// --unpaired-threshold as it is written; nothing when empty. Usage error for what is no threshold.
std::optional<data::filters::Threshold> parse_threshold(const std::string& text);

}  // namespace prefusion::tools

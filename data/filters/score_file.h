#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/filters/group_set.h"

namespace prefusion::data::filters {

// What a score file says of the data.
struct ScoreJoin {
  int64_t rows = 0;     // of the file
  int64_t matched = 0;  // rows that belong to a picture of the data
  int64_t failed = 0;   // rows with an error instead of scores
  int64_t scored = 0;   // pictures of the data that got scores
  std::vector<std::string> names;
};

// Adds the scores of a file that `prefusion score` wrote (read_score_rows()) to the groups of the set. A row belongs to
// the pictures that it names under `image`: by path, where one of its path and the data's may be longer in front; or by
// the name of a Parquet file followed by row and item. Where the row has a prompt, it must be the picture's. Scores
// that the data has under the same name are replaced. Input error for a file that cannot be read, that has no scores,
// or of which no row belongs to the data.
ScoreJoin join_scores(const std::filesystem::path& path, GroupSet& set);

}  // namespace prefusion::data::filters

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/filters/convert.h"
#include "data/filters/group_set.h"
#include "data/filters/group_writer.h"
#include "data/filters/margin.h"
#include "data/filters/rule.h"
#include "data/filters/score_file.h"
#include "tools/filter_request.h"

namespace prefusion::tools {

struct FilterResult {
  data::filters::GroupSet set;  // after conversion
  data::filters::GroupShape shape = data::filters::GroupShape::kPairs;
  int64_t rows_read = 0;                 // groups before conversion
  data::filters::Conversion conversion;  // its counts; the groups are in the set
  std::optional<data::filters::ScoreJoin> scores;
  std::vector<data::filters::RuleOutcome> rules;
  std::vector<int64_t> relabelled;
  std::vector<int64_t> kept;
  std::string margin_name;        // the score of `margins`, or "label"
  std::vector<double> margins;    // of every group of the set
  std::vector<double> qualities;  // the same
  std::string quality_name;       // the column, or "built-in"
  std::string embedding;          // what diversity was measured by; empty where it was not
  double diversity_before = 0;    // mean log distance to the k-th neighbour, of the prompts that were candidates
  double diversity_after = 0;     // of those that are kept, among themselves

  // Applies rules to the kept groups, and notes what each did.
  void apply(const std::vector<data::filters::Rule>& wanted);
};

// Reads, converts and filters; writes nothing.
FilterResult filter_data(const FilterRequest& request);

// Writes the kept groups. Groups whose pictures cannot be read are left out, named and counted against --max-bad.
void write_groups(const FilterRequest& request, FilterResult& result);

}  // namespace prefusion::tools

#pragma once

#include "tools/evaluate_models.h"

namespace prefusion::tools {

// Writes what the evaluation of one model found into `folder`:
//   report.html    the table, curves, pictures side by side, best and worst cases; stands alone
//   results.jsonl  a row a pair of pictures        summary.json  the table as data
//   baseline.png, model.png  grids of the same prompts and seeds; best.png, worst.png  pairs of pictures
//   pictures/NNNNN-baseline.png, -model.png  every picture, with options.save_pictures
void write_evaluation(const EvaluateOptions& options, const Evaluation& evaluation,
                      const std::filesystem::path& folder);

// What several models have to show, of which each has a folder of its own in options.output: report.html with a row a
// model, summary.json with a list of their summaries.
struct ComparedModel {
  std::string name;
  training::EvaluationSummary summary;
};
void write_overview(const EvaluateOptions& options, const std::vector<ComparedModel>& models);

// A line a model: the first two axes' change and the win rate.
std::string overview_table(const std::vector<ComparedModel>& models);

}  // namespace prefusion::tools

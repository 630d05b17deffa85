#pragma once

#include "tools/evaluate_models.h"

namespace prefusion::tools {

// Writes what an evaluation found into options.output:
//   report.html    the table, curves, pictures side by side, best and worst cases; stands alone
//   results.jsonl  a row a pair of pictures        summary.json  the table as data
//   baseline.png, model.png  grids of the same prompts and seeds; best.png, worst.png  pairs of pictures
//   pictures/NNNNN-baseline.png, -model.png  every picture, with options.save_pictures
void write_evaluation(const EvaluateOptions& options, const Evaluation& evaluation);

}  // namespace prefusion::tools

#pragma once

#include "losses/objective.h"
#include "training/align_options.h"

namespace prefusion::training {

// Writes report.html (curves from metrics.jsonl, alarms, sample pictures, the configuration) and README.md (the model
// card) into the output folder.
void write_report(const AlignOptions& options, const losses::ObjectiveInfo& objective,
                  const losses::ObjectiveParams& params, int64_t num_steps);

}  // namespace prefusion::training

#pragma once

#include <string>
#include <vector>

#include "losses/objective.h"
#include "training/align_options.h"
#include "training/metrics_log.h"

namespace prefusion::training {

// A run as HTML: its alarms and curves of loss, accuracy, errors, margin, gradient norm, time.
std::string metrics_charts(const std::vector<Metrics>& rows);

// Writes report.html (curves from metrics.jsonl, alarms, sample pictures, the configuration) and README.md (the model
// card) into the output folder.
void write_report(const AlignOptions& options, const losses::ObjectiveInfo& objective,
                  const losses::ObjectiveParams& params, int64_t num_steps);

}  // namespace prefusion::training

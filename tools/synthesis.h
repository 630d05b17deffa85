#pragma once

#include <optional>

#include "tools/synthesis_plan.h"
#include "tools/synthesis_summary.h"

namespace prefusion::tools {

// Makes, scores and ranks pictures, and writes them to options.output (docs/synthesize.md). A model is loaded once,
// makes its pictures of all prompts block by block into the journal, and goes; the lists are written from the journal
// at the end. So memory holds one model, the rewards and a block of pictures, however many models and prompts there
// are. Nothing when the output is there already, made with the same settings, and options.resumes.
std::optional<ListsSummary> synthesize(const SynthesizeOptions& options);

}  // namespace prefusion::tools

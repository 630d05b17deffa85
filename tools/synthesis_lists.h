#pragma once

#include "tools/synthesis_journal.h"
#include "tools/synthesis_plan.h"
#include "tools/synthesis_ranking.h"
#include "tools/synthesis_summary.h"

namespace prefusion::tools {

// Ranks the pictures of the journal and writes OUTPUT, whole or not at all. `settings` are noted in the file.
ListsSummary write_lists(const SynthesizeOptions& options, const SynthesisPlan& plan, ListRanking& ranking,
                         const SynthesisJournal& journal, const Json& settings);

}  // namespace prefusion::tools

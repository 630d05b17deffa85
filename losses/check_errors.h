#pragma once

#include "losses/objective.h"

namespace prefusion::losses {

// Run error that names the objective unless the batch holds what `info` says it needs, in tensors of fitting shapes.
void check_errors(const ObjectiveInfo& info, const GroupErrors& errors);

}  // namespace prefusion::losses

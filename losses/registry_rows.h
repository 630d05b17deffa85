#pragma once

#include <vector>

#include "losses/objective.h"

// The rows of the registry by what they train on.
namespace prefusion::losses {

std::vector<Objective> pair_rows();
std::vector<Objective> unpaired_rows();
std::vector<Objective> list_rows();

}  // namespace prefusion::losses

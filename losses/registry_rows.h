#pragma once

#include <vector>

#include "losses/objective.h"

// The rows of the registry by what they train on.
namespace prefusion::losses {

std::vector<Objective> pair_rows();
std::vector<Objective> conditional_rows();  // pairs that need more than errors, or errors made in another way
std::vector<Objective> unpaired_rows();
std::vector<Objective> list_rows();

}  // namespace prefusion::losses

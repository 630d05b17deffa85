#pragma once

#include <string>
#include <vector>

#include "losses/online/online_objective.h"
#include "training/align_options.h"

namespace prefusion::training {

// What is wrong with the options of an online objective because of the kind of objective it is: flags that would do
// nothing, and a reward that is unknown or cannot do what the objective asks of it.
std::vector<std::string> online_problems(const AlignOptions& options, const losses::OnlineObjective& objective);

}  // namespace prefusion::training

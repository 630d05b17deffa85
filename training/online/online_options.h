#pragma once

#include <string>
#include <vector>

#include "losses/online/online_objective.h"
#include "training/align_options.h"

namespace prefusion::training {

// What a run on the policy's own samples trains: an online objective or, where there are --prompts, one on data. Null
// for a run on data.
const losses::OnlineObjective* online_objective_of(const AlignOptions& options);

// What is wrong with the options of an online objective because of the kind of objective it is: flags that would do
// nothing, and a reward that is unknown or cannot do what the objective asks of it.
std::vector<std::string> online_problems(const AlignOptions& options, const losses::OnlineObjective& objective);

// Usage error for a noise that the model's steps do not have: that of a flow's is the parameter noise_level, that of
// DDIM's --eta.
void check_sampling_noise(const AlignOptions& options, const losses::OnlineObjective& objective, bool is_flow);

// The noise of sampling steps (TrajectoryOptions::noise): --eta, or in a flow model the parameter noise_level.
double sampling_noise(const AlignOptions& options, const losses::OnlineObjective& objective, bool is_flow);

}  // namespace prefusion::training

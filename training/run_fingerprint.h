#pragma once

#include <string>

#include "core/json_config.h"
#include "losses/objective.h"
#include "training/align_options.h"
#include "training/policy.h"

namespace prefusion::training {

// What the numbers of every run depend on, whatever its steps come from: optimisation, adapter, objective parameters,
// precision, and the weights it starts from. `policy` as it is at the start.
Json run_fingerprint(const AlignOptions& options, const losses::ObjectiveParams& params, const Policy& policy,
                     at::ScalarType dtype, int64_t num_steps);

// Additions to the objective and weights of timesteps, by the names of their flags.
Json loss_options_json(const AlignOptions& options);

// "its lr was 0.001, this run's is 0.002; its ...": every key of `now` that `saved` has otherwise; empty for none.
std::string changed_keys(const Json& saved, const Json& now);

}  // namespace prefusion::training

#pragma once

#include <memory>

#include "losses/online/online_objective.h"
#include "training/align_options.h"
#include "training/policy.h"
#include "training/step_source.h"

namespace prefusion::training {

// Steps of an online objective on trajectories: a round is sampled from the policy and judged, its decisions are
// replayed under the weights of now in an order of the round's own, then the next round is sampled. `policy` and
// `objective` must outlive them.
std::unique_ptr<StepSource> make_policy_gradient_steps(const AlignOptions& options, const Policy& policy,
                                                       const losses::OnlineObjective& objective, at::ScalarType dtype,
                                                       at::Device device);

}  // namespace prefusion::training

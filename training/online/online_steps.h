#pragma once

#include <memory>

#include "losses/online/online_objective.h"
#include "training/align_options.h"
#include "training/policy.h"
#include "training/step_source.h"

namespace prefusion::training {

// Steps on the policy's own samples: a round is sampled and judged, trained on in micro-steps, then comes the next.
// `policy` and `objective` must outlive them.
std::unique_ptr<StepSource> make_online_steps(const AlignOptions& options, const Policy& policy,
                                              const losses::OnlineObjective& objective, at::ScalarType dtype,
                                              at::Device device);

}  // namespace prefusion::training

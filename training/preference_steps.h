#pragma once

#include <memory>

#include "training/align_options.h"
#include "training/policy.h"
#include "training/step_source.h"

namespace prefusion::training {

// Steps on preference data: encoded groups, a reference, an objective. `policy` must outlive them.
std::unique_ptr<StepSource> make_preference_steps(const AlignOptions& options, const Policy& policy,
                                                  at::ScalarType dtype, at::Device device);

}  // namespace prefusion::training

#pragma once

#include <memory>
#include <string>

#include "schedulers/noise_schedule.h"
#include "training/align_options.h"
#include "training/group_inputs.h"
#include "training/policy.h"
#include "training/reference_policy.h"

namespace prefusion::training {

// The reference that `spec` asks for, at its start; null for none. One that is to be cached is what computes the
// errors: the policy itself as long as it has not moved, or --reference-model. Input error when a model does not load.
std::unique_ptr<ReferencePolicy> make_reference(const ReferenceSpec& spec, const AlignOptions& options,
                                                const Policy& policy, at::ScalarType dtype, at::Device device);

// Key of everything that errors at the start (or of --reference-model) depend on and that is the same for all groups of
// a run: weights, schedule, precision, scaling of latents, seed.
std::string reference_run_key(const AlignOptions& options, const Policy& policy,
                              const schedulers::NoiseSchedule& schedule, const LatentScaling& scaling,
                              at::ScalarType dtype, at::Device device);

}  // namespace prefusion::training

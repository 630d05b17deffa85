#pragma once

#include <memory>
#include <string>

#include "training/align_options.h"
#include "training/policy.h"
#include "training/reference_policy.h"

namespace prefusion::training {

// The reference that `spec` asks for, at its start; null for none. One that is to be cached is what computes the
// errors: the policy itself as long as it has not moved, or --reference-model. Input error when a model does not load.
std::unique_ptr<ReferencePolicy> make_reference(const ReferenceSpec& spec, const AlignOptions& options,
                                                const Policy& policy, at::ScalarType dtype, at::Device device);

// Key of the weights a reference that does not move has: reads them all.
std::string reference_weights_key(const AlignOptions& options, const Policy& policy, at::ScalarType dtype,
                                  at::Device device);

}  // namespace prefusion::training

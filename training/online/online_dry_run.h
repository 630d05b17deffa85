#pragma once

#include <string>

#include "training/online/online_method.h"
#include "training/optimizer.h"
#include "training/reference_spec.h"

namespace prefusion::training {

// Prints to standard output what the run would be: one round is sampled and one optimizer step of it is measured, then
// scaled to the whole run. `objective` is its name with its parameters. Nothing is written.
void online_dry_run(OnlineMethod& method, Optimizer& optimizer, const Policy& policy, const AlignOptions& options,
                    const std::string& objective, const ReferenceSpec& reference, at::Device device);

}  // namespace prefusion::training

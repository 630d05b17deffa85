#pragma once

#include <functional>
#include <string>

#include "losses/objective.h"
#include "training/align_options.h"
#include "training/encoded_data.h"
#include "training/optimizer.h"
#include "training/policy.h"
#include "training/train_step.h"

namespace prefusion::training {

// Prints to standard output what the run would be: parameters, effective batch, kappa, memory, and the time of one
// measured step on synthetic data with the whole run's duration. The peak of memory so far is that of encoding the
// data, and printed as such; that of the steps is measured from here on. Nothing is written. `complete` makes of a
// batch of the data one to train on; it is part of the step.
void dry_run(const TrainStep& step, Optimizer& optimizer, const Policy& policy, const EncodedData& data,
             const AlignOptions& options, int64_t num_steps, at::Device device, const losses::ObjectiveParams& params,
             const std::function<EncodedBatch(const EncodedBatch&)>& complete);

// Lines of it that every dry run has: the objective with its parameters and what is trained; memory, as planned and at
// its peak so far.
void print_parameters(const std::string& objective, const Optimizer& optimizer);
// The bytes of the denoiser's weights on the device; those that stay in host memory do not count.
size_t denoiser_bytes(const Policy& policy, at::Device device);
void print_memory(const Optimizer& optimizer, size_t policy_bytes, size_t reference_bytes, at::Device device);

}  // namespace prefusion::training

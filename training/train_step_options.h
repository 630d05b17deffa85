#pragma once

#include <ATen/core/ScalarType.h>

#include "core/safetensors.h"
#include "losses/objective.h"
#include "schedulers/noise_schedule.h"
#include "training/align_options.h"
#include "training/policy.h"
#include "training/train_step.h"

namespace prefusion::training {

// What a run's options say of its train steps; the scaling of latents is left to who knows the autoencoder. Usage error
// for a weighting or a timestep sampler that the schedule does not have.
TrainStepOptions train_step_options(const AlignOptions& options, const losses::Objective& objective,
                                    const losses::ObjectiveParams& params, const Policy& policy,
                                    const schedulers::NoiseSchedule& schedule, at::ScalarType dtype);

// What whoever recomputes a traced step needs to know of the objective: its parameters and what was added to it.
Metadata objective_metadata(const AlignOptions& options, const losses::ObjectiveParams& params);

}  // namespace prefusion::training

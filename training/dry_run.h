#pragma once

#include "losses/objective.h"
#include "training/align_options.h"
#include "training/encoded_data.h"
#include "training/optimizer.h"
#include "training/train_step.h"

namespace prefusion::training {

// Prints to standard output what the run would be: parameters, effective batch, kappa, memory, and the time of one
// measured step on synthetic data with the whole run's duration. Nothing is written.
void dry_run(const TrainStep& step, AdamW& optimizer, unet::Denoiser& denoiser, const EncodedData& data,
             const AlignOptions& options, int64_t num_steps, at::Device device, const losses::ObjectiveParams& params);

}  // namespace prefusion::training

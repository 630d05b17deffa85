#pragma once

#include <string>
#include <vector>

#include "training/encoded_data.h"
#include "training/reference_errors.h"

namespace prefusion::training {

// How hard a group is for a model: mean over timesteps of its error of the best item minus that of the worst. Positive
// where the model finds the better picture less likely than the worse one.
double hardness_of(const std::vector<std::vector<float>>& errors);  // [timesteps][k], best item first

// The hardness of every training group for the network behind `questions.errors_at`: the first draw of each group, its
// caption kept, at the timesteps timestep_grid(num_train_timesteps, num_timesteps). The errors are kept in the data's
// cache under `run_key`, so that a resumed run has the very same order. `questions` needs no draws and timesteps.
// Groups that could not be read are infinitely hard.
std::vector<double> measure_hardness(EncodedData& data, const std::string& run_key,
                                     ReferenceErrors::Questions questions, int64_t num_train_timesteps,
                                     int64_t num_timesteps);

}  // namespace prefusion::training

#pragma once

#include <filesystem>

#include "data/dataset.h"
#include "training/held_out_errors.h"

namespace prefusion::training {

// Writes a row a held-out group (data::GroupRow): what the data says of it, errors of policy and start, the implicit
// margin, how hard it is, and whether the policy contradicts the data. For single items margin and hardness are 0.
void write_group_table(const std::filesystem::path& path, const HeldOutErrors& held_out,
                       const data::PreferenceDataset& dataset, const losses::ObjectiveInfo& info, double kappa);

}  // namespace prefusion::training

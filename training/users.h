#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/weights.h"
#include "data/dataset.h"
#include "losses/objective.h"
#include "nn/user_adapter.h"
#include "training/align_options.h"
#include "unet/denoiser.h"

// Runs that train an adapter which knows users (objective ppd).
namespace prefusion::training {

// Usage error, naming the option, for what does not go with `objective`: options of such runs with another objective,
// and moving references with one that trains users.
void check_user_options(const AlignOptions& options, const losses::ObjectiveInfo& objective);

// The adapter of the run on a denoiser: a new one, that of --init-user-adapter, or one with the users of
// --user-embeddings.
std::shared_ptr<nn::UserAdapter> make_user_adapter(unet::Denoiser& denoiser, const AlignOptions& options);

// Gives the users of the training data their states and returns what is trained: projections and users, the projections
// alone for users of --user-embeddings, or with train=users the users alone. Input error when the data has users that
// --user-embeddings lacks; usage error for train=users when it has some that the adapter knows.
std::vector<NamedTensor> enroll_users(nn::UserAdapter& adapter, const std::vector<std::string>& users,
                                      const AlignOptions& options);

// The users who judged the groups, sorted.
std::vector<std::string> distinct_users(const data::PreferenceDataset& dataset);

// Share of draws that train the empty user.
double user_dropout(const losses::ObjectiveParams& params);

}  // namespace prefusion::training

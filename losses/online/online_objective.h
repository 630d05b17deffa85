#pragma once

#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "losses/objective.h"
#include "losses/online/diffusion_nft.h"
#include "losses/online/trajectory_batch.h"

namespace prefusion::losses {

// The kinds of online losses by what they see; each gives one loss a prompt, [B].
using TrajectoryLoss = at::Tensor (*)(const TrajectoryBatch& batch, const ObjectiveParams& params);
using ForwardLoss = at::Tensor (*)(const ForwardBatch& batch, const ObjectiveParams& params);
using RewardLoss = at::Tensor (*)(const at::Tensor& score, const ObjectiveParams& params);  // score [B], differentiable
// Or it is an objective on data, which sees errors of groups that are made of the samples; one loss a group.
using GroupObjective = const Objective*;

// A method that trains on what the policy itself generates, judged by a reward.
struct OnlineObjective {
  ObjectiveInfo info;                  // needs_reference says whether there must be one
  std::vector<TrajectoryInput> needs;  // of a TrajectoryLoss, besides log_prob
  bool is_pairwise = false;            // trains on pairs of trajectories, the better one first
  bool compares_candidates = false;    // the pairs are draws of one step from a common state
  bool sums_over_steps = false;        // its loss is no mean over steps: it wants whole trajectories
  bool needs_flow = false;             // it is about the steps of a flow model's SDE
  bool has_constant_noise = false;     // that SDE is DanceGRPO's, whose noise does not depend on the level
  std::variant<TrajectoryLoss, ForwardLoss, RewardLoss, GroupObjective> group_loss;
};

// Every online objective: a row each.
std::span<const OnlineObjective> online_objectives();

// The online objective of that name; null for any other name.
const OnlineObjective* find_online_objective(std::string_view name);

// The objective on data of that name as one on the policy's own samples, which a reward puts in order (online DPO).
// Null for any other name, and where a sample cannot stand for an item: for it would have to be inverted, or to come
// with a mask, a user or a prompt of its own.
const OnlineObjective* find_objective_on_samples(std::string_view name);

// The mean over prompts of a trajectory objective's loss. Run error when the batch lacks an input, a shape does not fit
// or the objective is of another kind. []
at::Tensor trajectory_loss(const OnlineObjective& objective, const TrajectoryBatch& batch,
                           const ObjectiveParams& params);

}  // namespace prefusion::losses

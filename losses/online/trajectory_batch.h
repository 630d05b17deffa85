#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace prefusion::losses {

// What an online objective sees of sampled trajectories: B prompts with k trajectories of S stochastic steps each
// (k = 2 for pairs, index 0 the chosen one). Log-probabilities are of the step that was taken, MEANS over C,H,W as the
// public code of this family has them, in fp32; fp64 is taken for gradient checks. Tensors that an objective does not
// need (OnlineObjective::needs) may stay undefined; all but log_prob, kl and kl_old are taken as constants.
struct TrajectoryBatch {
  at::Tensor log_prob;      // [B, k, S] under the policy, differentiable
  at::Tensor log_prob_old;  // [B, k, S] under the policy that sampled
  at::Tensor log_prob_ref;  // [B, k, S] under the reference
  at::Tensor advantage;     // [B, k]
  at::Tensor reward;        // [B, k]
  at::Tensor kl;            // [B, k, S] KL of the step from the reference's, a mean over C,H,W, differentiable
  at::Tensor kl_old;        // [B, k, S] the same from the step of the policy that sampled
  at::Tensor step_std;      // [S] deviation of the step's noise
  at::Tensor step_size;     // [S] -dt, how far time goes down in the step of a flow model
  double num_elements = 1;  // C * H * W, which turns the means into sums
};

enum class TrajectoryInput { kLogProbOld, kLogProbRef, kAdvantage, kReward, kKl, kKlOld, kStepStd, kStepSize };

// Run error naming the objective unless log_prob is a non-empty fp32 [B, k, S] and the inputs are there in their
// shapes.
void check_trajectories(const std::string& objective, const TrajectoryBatch& batch,
                        const std::vector<TrajectoryInput>& needs);

}  // namespace prefusion::losses

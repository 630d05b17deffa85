#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

// Losses that fit a reward model's scores to preferences. B groups of k items under one prompt; no model is seen.
namespace prefusion::losses {

struct RewardTargets {
  at::Tensor scores;   // [B, k], higher is better
  at::Tensor labels;   // [B, k]: of a pair the probabilities that it is preferred, where they sum to 1 (a tie is 0.5
                       // twice); else how good an item is said to be
  at::Tensor log_tie;  // 0-dim, log nu of Davidson's model; undefined: the model knows no ties
};

// Probability that item i is preferred to item j, for all i < j in the order (0,1), (0,2), ..., (1,2), ...:
// [B, k(k-1)/2]. Pairs keep probabilities; other labels give 1, 0 or, where they are equal, 0.5.
at::Tensor pair_targets(const at::Tensor& labels);

// x_i - x_j of the same pairs.
at::Tensor score_gaps(const at::Tensor& scores);

// PickScore (arXiv 2305.01569), pairs only: cross-entropy of the labels and the softmax of the scores; ties have log 2
// taken off, so that a perfect one costs nothing. [B]
at::Tensor pickscore_loss(const RewardTargets& targets);

// Bradley and Terry 1952, the mean over all pairs of a group. With log_tie it is Davidson's model of ties (1970): of
// strengths e^s, first : second : tie = e^(d/2) : e^(-d/2) : nu, d the gap of scores. A target of exactly 0.5 is a tie
// there. [B]
at::Tensor bradley_terry_loss(const RewardTargets& targets);

// The hinge on rank lists of HPSv2's training code: the mean over pairs with a preference of
// max(0, margin - (s_preferred - s_other)); 0 for a group without one. [B]
at::Tensor hps_loss(const RewardTargets& targets, double margin);

// RankList (arXiv 2508.09826): neighbours of the list, best first, then items up to `strides` places apart; logistic,
// summed. Items that tie are not compared. [B]
at::Tensor ranklist_loss(const RewardTargets& targets, int64_t strides);

// Plackett-Luce (Luce 1959, Plackett 1975): minus the log-probability of the order of the labels; items with equal
// labels stand in the order given. [B]
at::Tensor plackett_luce_loss(const RewardTargets& targets);

// Mean squared distance of scores and labels, where a label is finite. [B]
at::Tensor rating_loss(const RewardTargets& targets);

// In-batch negatives (CLIP, arXiv 2103.00020): scores [B, B, k] of every prompt (dimension 0) under the pictures of
// every group; is_same [B, B] where two groups have one prompt. The first picture of a group is told from those of the
// groups with other prompts, and its prompt from other prompts; the mean of both cross-entropies. [B]
at::Tensor in_batch_loss(const at::Tensor& scores, const at::Tensor& is_same);

// sum(w x) / sum(w); weights [B], undefined for ones. Run error when all weights are zero.
at::Tensor weighted_mean(const at::Tensor& per_group, const at::Tensor& weights);

// What kind of groups a loss is made for.
enum class RewardGroups { kPairs, kLists };

// One loss by name.
struct RewardLoss {
  std::string name;
  RewardGroups groups = RewardGroups::kPairs;
  std::map<std::string, double> parameters;  // with their defaults
  std::string summary;
  at::Tensor (*compute)(const RewardTargets&, const std::map<std::string, double>&);  // [B]
};

const std::vector<RewardLoss>& reward_losses();

// Usage error naming the losses there are.
const RewardLoss& find_reward_loss(const std::string& name);

}  // namespace prefusion::losses

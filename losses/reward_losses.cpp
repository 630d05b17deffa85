#include "losses/reward_losses.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "losses/group_math.h"

namespace prefusion::losses {
namespace {

// Values of the items i and j of all pairs i < j.
struct PairSides {
  at::Tensor first, second;  // [B, pairs]
};

PairSides pair_sides(const at::Tensor& x) {
  check_usage(x.dim() == 2 && x.size(1) >= 2, "a reward loss compares the items of groups [B, k], found ",
              shape_text(x.sizes()));
  const at::Tensor places =
      at::triu_indices(x.size(1), x.size(1), /*offset=*/1, at::TensorOptions().dtype(at::kLong).device(x.device()));
  return {x.index_select(1, places[0]), x.index_select(1, places[1])};
}

at::Tensor mean_over(const at::Tensor& values, const at::Tensor& counts) {
  return (values * counts).sum(1) / counts.sum(1).clamp_min(1);
}

}  // namespace

at::Tensor pair_targets(const at::Tensor& labels) {
  const auto [first, second] = pair_sides(labels);
  const at::Tensor compared = (first - second).sign() / 2 + 0.5;
  if (labels.size(1) != 2) return compared;
  const at::Tensor are_probabilities =
      (first + second - 1).abs().lt(1e-5).logical_and(first.ge(0)).logical_and(second.ge(0));
  return at::where(are_probabilities, first, compared);
}

at::Tensor score_gaps(const at::Tensor& scores) {
  const auto [first, second] = pair_sides(scores);
  return first - second;
}

at::Tensor pickscore_loss(const RewardTargets& targets) {
  check_usage(targets.scores.dim() == 2 && targets.scores.size(1) == 2, "PickScore's loss takes pairs, found groups ",
              shape_text(targets.scores.sizes()));
  const at::Tensor p = pair_targets(targets.labels).squeeze(1);
  const at::Tensor gap = score_gaps(targets.scores).squeeze(1);
  const at::Tensor cross_entropy = p * log1p_exp(-gap) + (1 - p) * log1p_exp(gap);
  return cross_entropy - p.eq(0.5).to(gap.dtype()) * std::log(2.0);
}

at::Tensor bradley_terry_loss(const RewardTargets& targets) {
  const at::Tensor p = pair_targets(targets.labels);
  const at::Tensor gap = score_gaps(targets.scores);
  if (!targets.log_tie.defined()) return (p * log1p_exp(-gap) + (1 - p) * log1p_exp(gap)).mean(1);
  const at::Tensor tie = targets.log_tie.to(gap.dtype()).expand_as(gap);
  const at::Tensor outcomes = at::stack({gap / 2, -gap / 2, tie}, -1);  // [B, pairs, 3]
  const at::Tensor is_tie = p.eq(0.5).to(gap.dtype());
  const at::Tensor shares = at::stack({p * (1 - is_tie), (1 - p) * (1 - is_tie), is_tie}, -1);
  return -(shares * at::log_softmax(outcomes, -1)).sum(-1).mean(1);
}

at::Tensor hps_loss(const RewardTargets& targets, double margin) {
  const at::Tensor direction = (pair_targets(targets.labels) - 0.5).sign();
  const at::Tensor hinge = (margin - direction * score_gaps(targets.scores)).clamp_min(0);
  return mean_over(hinge, direction.abs());
}

at::Tensor ranklist_loss(const RewardTargets& targets, int64_t strides) {
  const at::Tensor order = order_best_first(targets.labels);
  const at::Tensor labels = targets.labels.gather(1, order);
  const at::Tensor scores = targets.scores.gather(1, order);
  const int64_t k = scores.size(1);
  check_usage(k >= 2, "RankList compares the items of a list, found groups ", shape_text(scores.sizes()));
  at::Tensor loss = at::zeros_like(scores.select(1, 0));
  for (int64_t stride = 1; stride <= std::min(k - 1, strides); ++stride) {
    const auto better = [&](const at::Tensor& x) { return x.slice(1, 0, k - stride); };
    const auto worse = [&](const at::Tensor& x) { return x.slice(1, stride); };
    const at::Tensor differ = (better(labels) > worse(labels)).to(scores.dtype());
    loss = loss + (differ * log1p_exp(worse(scores) - better(scores))).sum(1);
  }
  return loss;
}

at::Tensor plackett_luce_loss(const RewardTargets& targets) {
  const at::Tensor scores = targets.scores.gather(1, order_best_first(targets.labels));
  // Column j of the flipped cumulative sum is log sum_{m >= j} exp(score_m).
  const at::Tensor log_sums = at::logcumsumexp(scores.flip(1), 1).flip(1);
  return (log_sums - scores).slice(1, 0, scores.size(1) - 1).sum(1);
}

at::Tensor rating_loss(const RewardTargets& targets) {
  const at::Tensor is_rated = at::isfinite(targets.labels);
  const at::Tensor ratings = at::where(is_rated, targets.labels, at::zeros_like(targets.labels));
  return mean_over((targets.scores - ratings).square(), is_rated.to(targets.scores.dtype()));
}

at::Tensor in_batch_loss(const at::Tensor& scores, const at::Tensor& is_same) {
  const int64_t count = scores.size(0);
  check_usage(scores.dim() == 3 && scores.size(1) == count && is_same.sizes() == at::IntArrayRef({count, count}),
              "in-batch negatives need scores [B, B, k] and [B, B], found ", shape_text(scores.sizes()), " and ",
              shape_text(is_same.sizes()));
  const at::Tensor own = scores.select(2, 0).diagonal();  // [B]
  const auto log_share = [&](const at::Tensor& rivals) {  // [B, rivals], -inf where there is none
    return own - at::logsumexp(at::cat({own.unsqueeze(1), rivals}, 1), {1});
  };
  const at::Tensor pictures = scores.masked_fill(is_same.unsqueeze(2), -INFINITY).flatten(1);
  const at::Tensor prompts = scores.select(2, 0).masked_fill(is_same, -INFINITY).t();
  return -(log_share(pictures) + log_share(prompts)) / 2;
}

at::Tensor weighted_mean(const at::Tensor& per_group, const at::Tensor& weights) {
  if (!weights.defined()) return per_group.mean();
  const at::Tensor total = weights.sum();
  check_run(total.item<double>() > 0, "the weights of a whole batch are zero");
  return (per_group * weights).sum() / total;
}

const std::vector<RewardLoss>& reward_losses() {
  using Parameters = std::map<std::string, double>;
  static const std::vector<RewardLoss> kLosses = {
      {.name = "pickscore",
       .groups = RewardGroups::kPairs,
       .parameters = {},
       .summary = "cross-entropy of soft labels and the pair's softmax (arXiv 2305.01569)",
       .compute = [](const RewardTargets& t, const Parameters&) { return pickscore_loss(t); }},
      {.name = "bradley-terry",
       .groups = RewardGroups::kPairs,
       .parameters = {},
       .summary = "logistic, with Davidson's model of ties where the data has some",
       .compute = [](const RewardTargets& t, const Parameters&) { return bradley_terry_loss(t); }},
      {.name = "hps",
       .groups = RewardGroups::kLists,
       .parameters = {{"margin", 1.0}},
       .summary = "hinge on the pairs of a rank list, as HPSv2's training code",
       .compute = [](const RewardTargets& t, const Parameters& p) { return hps_loss(t, p.at("margin")); }},
      {.name = "ranklist",
       .groups = RewardGroups::kLists,
       .parameters = {{"strides", 2}},
       .summary = "logistic between neighbours, then items up to `strides` places apart (arXiv 2508.09826)",
       .compute = [](const RewardTargets& t,
                     const Parameters& p) { return ranklist_loss(t, static_cast<int64_t>(p.at("strides"))); }},
      {.name = "plackett-luce",
       .groups = RewardGroups::kLists,
       .parameters = {},
       .summary = "likelihood of the whole order",
       .compute = [](const RewardTargets& t, const Parameters&) { return plackett_luce_loss(t); }},
      {.name = "mse",
       .groups = RewardGroups::kLists,
       .parameters = {},
       .summary = "squared distance to ratings",
       .compute = [](const RewardTargets& t, const Parameters&) { return rating_loss(t); }},
  };
  return kLosses;
}

const RewardLoss& find_reward_loss(const std::string& name) {
  std::string known;
  for (const RewardLoss& loss : reward_losses()) {
    if (loss.name == name) return loss;
    known += (known.empty() ? "" : ", ") + loss.name;
  }
  fail_usage("--loss ", name, ": no such loss; there are ", known);
}

}  // namespace prefusion::losses

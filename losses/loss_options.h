#pragma once

#include <optional>

namespace prefusion::losses {

struct Objective;
struct ObjectiveInfo;

// What can be added to every objective that can bear it; the defaults change nothing. Chosen item: index 0 of a pair,
// the best of a list, the desirable ones of unpaired items.
struct LossOptions {
  // Factor from 0 to 1 of s = error_ref - error of every item but the chosen one (of the error itself without a
  // reference). Below 1 it pays less to get worse at the others.
  double loser_weight = 1;
  // mu of Diffusion-SDPO, 0 to 1 (losses/safe_loser.h): the gradient through a pair's rejected item is scaled so that
  // the chosen error does not rise. Needs residual_dot.
  std::optional<double> safe_loser;
  double sft_weight = 0;     // weight of the chosen item's error, added to the loss
  double anchor_weight = 0;  // weight of the items' mean drift, added to the loss. Needs drift
  // Probability from 0 to 1/2 that a pair's label is wrong: (1 - eps) * L(pair) + eps * L(pair of exchanged roles).
  double label_smoothing = 0;
  // A pair's first label p is the probability that item 0 is the better one: p * L(pair) + (1 - p) * L(exchanged).
  bool soft_labels = false;
  // Share of the groups whose preference term is left out, while the sft and anchor terms stay; the caller draws them
  // (GroupErrors::drop_margin).
  double margin_drop = 0;
  // Pairs whose prompt was dropped change roles (Diff-SNPO, ICLR 2026); the caller marks them (GroupErrors::swap).
  bool swap_empty_prompts = false;

  bool operator==(const LossOptions&) const = default;
};

// Usage error naming the option and the objective where a value is out of range or the objective cannot bear the
// option.
void check_loss_options(const Objective& objective, const LossOptions& options);

// `info` with what the options need besides.
ObjectiveInfo with_needs_of(const LossOptions& options, const ObjectiveInfo& info);

}  // namespace prefusion::losses

#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "losses/objective.h"
#include "training/metrics_log.h"

namespace prefusion::training {

// What one measurement of N held-out groups of k items found, on the CPU.
struct HeldOutErrors {
  std::vector<int64_t> timesteps;  // G, low noise first
  at::Tensor error, error_ref;     // [G, N, k] fp64; error_ref of the start, whatever the reference does since
  at::Tensor labels, scores;       // [N, k] fp64 or undefined
  std::vector<std::string> ids;    // N
  std::vector<int64_t> items;      // N, index in the held-out data

  int64_t num_groups() const { return error.size(1); }
  int64_t items_per_group() const { return error.size(2); }
};

// Items of pairs and lists stand best first: the first is the chosen, the last the rejected one. Of single items those
// with a label above 1/2 are chosen.
at::Tensor chosen_mask(const HeldOutErrors& held_out);    // [N, k] bool
at::Tensor rejected_mask(const HeldOutErrors& held_out);  // [N, k] bool

// kappa * (error_ref - error), without the kappa for objectives that have none, and with -error for the difference for
// those without a reference. [G, N, k]
at::Tensor implicit_rewards(const HeldOutErrors& held_out, const losses::ObjectiveInfo& info, double kappa);

// Expected calibration error of sigmoid(implicit reward difference) as the probability that the better item is
// preferred: over all timesteps and ordered pairs, in ten equal bins of the confidence max(p, 1 - p), the mean distance
// of confidence and accuracy, weighted by the bins' sizes. A soft label of a pair counts with its probability. Not
// meaningful (NaN) for objectives without a kappa and for single items.
double calibration_error(const HeldOutErrors& held_out, const losses::ObjectiveInfo& info, double kappa);

// How far the policy has come from the start, without prefix:
//   drift_chosen, drift_rejected        mean error over that of the start, minus 1
//   error_chosen_band0 ... (error_rejected, drift_chosen, drift_rejected): the same by timestep, low noise first
//   displaced, displaced_low            share of groups whose chosen items have a larger error than at the start, and
//                                       its lower 95 % bound
//   ece                                 calibration_error
// Names that the data cannot give are absent.
Metrics held_out_metrics(const HeldOutErrors& held_out, const losses::ObjectiveInfo& info, double kappa);

}  // namespace prefusion::training

#pragma once

#include <ATen/core/Tensor.h>

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "losses/group_errors.h"
#include "losses/loss_options.h"

namespace prefusion::losses {

// What an objective trains on.
enum class DataKind { kSingle, kPair, kList, kUnpaired, kOnline };

const char* data_kind_name(DataKind kind);  // "single", "pair", "list", "unpaired", "online"

// One of the objective's own parameters, a key of --objective-args: a number, or one of several words.
struct ObjectiveParameter {
  std::string name;
  double default_value = 0;
  double min = 0;  // inclusive, like max
  double max = 0;
  std::string help;
  bool is_whole = false;             // only whole numbers
  std::vector<std::string> choices;  // the words it takes, the first the default; empty for a number

  bool is_choice() const { return !choices.empty(); }
};

// A row of --list-objectives.
struct ObjectiveInfo {
  std::string name;
  DataKind data = DataKind::kPair;
  bool needs_reference = false;
  std::string default_reference;  // a value of --reference, such as "ema:0.99"; empty: what suits the adapter
  LatentSource latent_source = LatentSource::kForwardNoise;
  bool needs_drift = false;            // GroupErrors::drift, so the reference's predictions, not only its errors
  bool needs_residual_dot = false;     // GroupErrors::residual_dot
  bool needs_prompt_distance = false;  // GroupErrors::prompt_distance
  bool needs_scores = false;           // GroupErrors::scores
  bool needs_item_prompts = false;     // each item is predicted under a prompt of its own
  bool needs_mask = false;             // errors weighted by a mask of each picture
  bool needs_users = false;            // each group is predicted for the user who judged it: trains a user adapter
  bool fuses_experts = false;          // trains a gate over LoRA experts
  bool compares_groups = false;        // a group's loss depends on the other groups of the batch
  std::vector<ObjectiveParameter> parameters;
  double kappa_per_beta =
      0;  // kappa = kappa_per_beta * beta in the method's public code; 0: the objective has no kappa
  double default_beta = 0;
  std::string paper;
  std::string summary;

  bool has_kappa() const { return kappa_per_beta > 0; }
};

// An objective's parameters, resolved by resolve_params.
struct ObjectiveParams {
  // Coefficient of D (or s) in the logit, on errors that are means over C,H,W; not meaningful without has_kappa().
  double kappa = std::numeric_limits<double>::quiet_NaN();
  std::map<std::string, double> values;        // every number, by name
  std::map<std::string, std::string> choices;  // every word, by name

  double get(const std::string& name) const { return values.at(name); }
  const std::string& choice(const std::string& name) const { return choices.at(name); }
};

struct LossOutput {
  at::Tensor loss;        // [] mean over groups, the scalar that is differentiated
  at::Tensor group_loss;  // [B] weighted by GroupErrors::weights
  // Detached scalars on the errors' device: accuracy, margin, error_chosen, error_rejected, on lists ranking_accuracy,
  // and what the reference has of them (losses/metrics.h). Names that the data cannot give are absent.
  std::map<std::string, at::Tensor> metrics;
};

// A named method: a pure function from errors to a loss.
struct Objective {
  ObjectiveInfo info;
  at::Tensor (*group_loss)(const GroupErrors& errors, const ObjectiveParams& params);  // -> [B]
  // Labels of the objective's own making, for loss and metrics alike; null: those of the data.
  at::Tensor (*labels)(const GroupErrors& errors, const ObjectiveParams& params) = nullptr;  // -> [B, k]

  // Checks the batch against `info`, then the mean over groups of group_loss * weights, and the metrics, which are of
  // the errors as given whatever the options. Run error when a shape does not fit, something that the objective or an
  // option needs is missing or the batch is empty; usage error for options it cannot bear.
  LossOutput compute(const GroupErrors& errors, const ObjectiveParams& params, const LossOptions& options = {}) const;
};

}  // namespace prefusion::losses

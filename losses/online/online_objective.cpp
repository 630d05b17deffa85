#include "losses/online/online_objective.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "losses/online/d3po.h"
#include "losses/online/longalign.h"
#include "losses/online/ppo_clip.h"
#include "losses/online/prdp.h"
#include "losses/registry.h"

namespace prefusion::losses {
namespace {

using enum TrajectoryInput;

ObjectiveParameter clip_of(double value) {
  return {"clip", value, 1e-9, 0.999, "how far the ratio to the policy that sampled may count"};
}

ObjectiveParameter advantage_clip() {
  return {"advantage_clip", 5, 1e-3, 1e3, "largest advantage, either way"};
}

// 0 is the ODE, which has no decisions to learn from.
ObjectiveParameter noise_level(double value, double least = 1e-6) {
  return {"noise_level", value, least, 10, "noise of a flow model's sampling steps"};
}

ObjectiveParameter whole(const char* name, double value, double min, double max, const char* help) {
  return {.name = name, .default_value = value, .min = min, .max = max, .help = help, .is_whole = true};
}

std::vector<OnlineObjective> all_rows() {
  return {
      {.info = {.name = "ddpo",
                .data = DataKind::kOnline,
                .parameters = {clip_of(1e-4), advantage_clip(), noise_level(0.7)},
                .paper = "arXiv 2305.13301",
                .summary = "clipped policy gradient on denoising steps"},
       .needs = {kLogProbOld, kAdvantage},
       .group_loss = ddpo_loss},
      {.info = {.name = "dance-grpo",
                .data = DataKind::kOnline,
                .parameters = {clip_of(1e-4), advantage_clip(), noise_level(0.3)},
                .paper = "arXiv 2505.07818",
                .summary = "ddpo on a flow model's SDE of constant noise"},
       .needs = {kLogProbOld, kAdvantage},
       .needs_flow = true,
       .has_constant_noise = true,
       .group_loss = ddpo_loss},
      {.info = {.name = "flow-grpo",
                .data = DataKind::kOnline,
                .needs_reference = true,
                .parameters = {clip_of(1e-4),
                               advantage_clip(),
                               {"kl_weight", 0.04, 0, 1e6, "weight of the KL term"},
                               noise_level(0.7)},
                .paper = "arXiv 2505.05470",
                .summary = "clipped policy gradient with a KL term"},
       .needs = {kLogProbOld, kAdvantage, kKl, kStepSize},
       .group_loss = flow_grpo_loss},
      {.info = {.name = "grpo-guard",
                .data = DataKind::kOnline,
                .parameters = {clip_of(2e-6), advantage_clip(), noise_level(0.7)},
                .paper = "arXiv 2510.22319",
                .summary = "flow-grpo with ratios centred and steps weighing alike"},
       .needs = {kLogProbOld, kAdvantage, kKlOld, kStepStd, kStepSize},
       .needs_flow = true,
       .group_loss = grpo_guard_loss},
      {.info = {.name = "d3po",
                .data = DataKind::kOnline,
                .needs_reference = true,
                .parameters = {{"clip", 0.1, 1e-9, 0.999, "how far the ratio to the reference counts"},
                               noise_level(0.7)},
                .kappa_per_beta = 1,
                .default_beta = 0.1,
                .paper = "arXiv 2311.13231",
                .summary = "DPO on the steps of two trajectories"},
       .needs = {kLogProbRef},
       .is_pairwise = true,
       .group_loss = d3po_loss},
      {.info = {.name = "spo",
                .data = DataKind::kOnline,
                .needs_reference = true,
                .parameters = {{"clip", 0.1, 1e-9, 0.999, "how far the ratio to the reference counts"},
                               whole("candidates", 4, 2, 1024, "draws from the same state that are compared"),
                               whole("max_timestep", 750, 0, 1e6, "largest timestep with a comparison"),
                               {"min_gap", 0, 0, 1e9, "pairs whose rewards differ by no more are left out"},
                               noise_level(0.7)},
                .kappa_per_beta = 1,
                .default_beta = 10,
                .paper = "arXiv 2406.04314",
                .summary = "DPO on steps that leave one common state"},
       .needs = {kLogProbRef},
       .is_pairwise = true,
       .compares_candidates = true,
       .group_loss = d3po_loss},
      {.info = {.name = "prdp",
                .data = DataKind::kOnline,
                .needs_reference = true,
                .parameters = {{"clip", 1e-4, 1e-12, 1e9, "how far a step's log-ratio may count"}, noise_level(0.7)},
                .kappa_per_beta = 1,
                .default_beta = 10,
                .paper = "arXiv 2402.08714",
                .summary = "regression of log-ratio differences on reward differences"},
       .needs = {kLogProbOld, kLogProbRef, kReward},
       .sums_over_steps = true,
       .group_loss = prdp_loss},
      {.info = {.name = "diffusion-nft",
                .data = DataKind::kOnline,
                .needs_reference = true,
                .needs_drift = true,
                .parameters = {advantage_clip(),
                               {"kl_weight", 1e-4, 0, 1e6, "weight of the drift from the reference"},
                               {"old_decay", 0.5, 0, 1, "largest decay of the policy that samples"},
                               {"old_decay_rate", 1e-3, 0, 1, "how fast that decay rises, an optimizer step"},
                               noise_level(0, /*least=*/0)},
                .kappa_per_beta = 1,
                .default_beta = 1,
                .paper = "arXiv 2509.16117",
                .summary = "denoising towards good and away from bad samples"},
       .group_loss = diffusion_nft_loss},
      {.info = {.name = "longalign",
                .data = DataKind::kOnline,
                .parameters = {{"weight", 0.3, 0, 1, "share of the score common to all prompts that is kept"},
                               whole("gradient_every", 10, 1, 1e4, "every so many sampling steps have a gradient")},
                .paper = "arXiv 2410.11817",
                .summary = "back-propagation of a decomposed preference score"},
       .group_loss = longalign_loss},
  };
}

bool can_use_samples(const ObjectiveInfo& info) {
  const bool samples_itself =
      std::ranges::any_of(info.parameters, [](const auto& parameter) { return parameter.name == "rejected"; });
  return info.latent_source == LatentSource::kForwardNoise && !info.needs_item_prompts && !info.needs_mask &&
         !info.needs_users && !info.fuses_experts && !samples_itself;
}

std::vector<OnlineObjective> rows_on_samples() {
  std::vector<OnlineObjective> rows;
  for (const Objective& objective : objectives()) {
    if (can_use_samples(objective.info)) rows.push_back({.info = objective.info, .group_loss = &objective});
  }
  return rows;
}

const OnlineObjective* find(std::span<const OnlineObjective> rows, std::string_view name) {
  const auto found = std::ranges::find(rows, name, [](const OnlineObjective& row) { return row.info.name; });
  return found == rows.end() ? nullptr : &*found;
}

}  // namespace

std::span<const OnlineObjective> online_objectives() {
  static const std::vector<OnlineObjective> kObjectives = all_rows();
  return kObjectives;
}

const OnlineObjective* find_online_objective(std::string_view name) {
  return find(online_objectives(), name);
}

const OnlineObjective* find_objective_on_samples(std::string_view name) {
  static const std::vector<OnlineObjective> kRows = rows_on_samples();
  return find(kRows, name);
}

at::Tensor trajectory_loss(const OnlineObjective& objective, const TrajectoryBatch& batch,
                           const ObjectiveParams& params) {
  const auto* loss = std::get_if<TrajectoryLoss>(&objective.group_loss);
  check_run(loss != nullptr, objective.info.name, ": does not train on trajectories");
  check_trajectories(objective.info.name, batch, objective.needs);
  return (*loss)(batch, params).mean();
}

}  // namespace prefusion::losses

#include "losses/registry.h"

#include <vector>

#include "core/error.h"
#include "losses/diffusion_dpo.h"
#include "losses/dpo_hinge.h"
#include "losses/dpo_ipo.h"
#include "losses/dpo_robust.h"
#include "losses/dpo_smooth.h"
#include "losses/edit_distance.h"
#include "losses/kto.h"
#include "losses/mapo.h"
#include "losses/plackett_luce.h"
#include "losses/rankdpo.h"
#include "losses/sft.h"
#include "losses/simpo.h"

namespace prefusion::losses {
namespace {

constexpr const char* kSmoothingHelp = "probability that a label is wrong";

// kappa_per_beta 0.5 is the factor of the Diffusion-DPO code, which the pairwise and listwise methods on D take over.
const std::vector<Objective>& table() {
  static const std::vector<Objective> kObjectives = {
      {{.name = "sft", .data = DataKind::kSingle, .paper = "-", .summary = "denoising loss on the chosen item"},
       sft_loss},
      {{.name = "diffusion-dpo",
        .data = DataKind::kPair,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2311.12908",
        .summary = "logistic loss on the improvement over the reference"},
       diffusion_dpo_loss},
      {{.name = "dpo-ipo",
        .data = DataKind::kPair,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2310.12036",
        .summary = "squared distance of the logit from 1/2"},
       dpo_ipo_loss},
      {{.name = "dpo-hinge",
        .data = DataKind::kPair,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2305.10425",
        .summary = "hinge on the logit, no gradient beyond margin 1"},
       dpo_hinge_loss},
      {{.name = "dpo-smooth",
        .data = DataKind::kPair,
        .needs_reference = true,
        .parameters = {{"label_smoothing", 0.1, 0.0, 0.5, kSmoothingHelp}},
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2305.18290",
        .summary = "DPO with smoothed labels (cDPO)"},
       dpo_smooth_loss},
      {{.name = "dpo-robust",
        .data = DataKind::kPair,
        .needs_reference = true,
        .parameters = {{"label_smoothing", 0.1, 0.0, 0.49, kSmoothingHelp}},
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2403.00409",
        .summary = "DPO unbiased under flipped labels (rDPO)"},
       dpo_robust_loss},
      {{.name = "simpo",
        .data = DataKind::kPair,
        .parameters = {{"gamma", 0.5, 0.0, 1e3, "margin that the logit should exceed"}},
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2405.14734",
        .summary = "logistic loss on the errors themselves, with a margin"},
       simpo_loss},
      {{.name = "mapo",
        .data = DataKind::kPair,
        .parameters = {{"snr", 0.5, 1e-6, 1e3, "factor of the error inside h"},
                       {"weight", 0.1, 0.0, 1e6, "weight of the margin term (beta_mapo of the public code)"},
                       {"T", 1000, 1.0, 1e6, "factor of the logit, the number of training timesteps"}},
        .paper = "arXiv 2406.06424",
        .summary = "denoising loss on the chosen item plus a bounded margin"},
       mapo_loss},
      {{.name = "kto",
        .data = DataKind::kUnpaired,
        .needs_reference = true,
        .kappa_per_beta = 1,
        .default_beta = 1000,
        .paper = "arXiv 2404.04465",
        .summary = "utility of single items that are desirable or not"},
       kto_loss},
      {{.name = "rankdpo",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2410.18013",
        .summary = "DPO over all pairs of a list, weighted by DCG changes"},
       rankdpo_loss},
      {{.name = "plackett-luce",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2510.01540",
        .summary = "likelihood of a list's order"},
       plackett_luce_loss},
  };
  return kObjectives;
}

}  // namespace

std::span<const Objective> objectives() {
  return table();
}

const Objective& find_objective(std::string_view name) {
  std::vector<std::string> names;
  for (const Objective& objective : objectives()) {
    if (objective.info.name == name) return objective;
    names.push_back(objective.info.name);
  }
  std::string known;
  for (const auto& other : names) known += (known.empty() ? "" : ", ") + other;
  fail_usage("unknown objective '", name, "'; did you mean '", nearest_name(name, names), "'? Known: ", known);
}

}  // namespace prefusion::losses

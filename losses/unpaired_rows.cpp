#include "losses/registry_rows.h"

#include "losses/bco_unpaired.h"
#include "losses/derived_labels.h"
#include "losses/kto.h"

namespace prefusion::losses {
namespace {

constexpr const char* kDeltaHelp = "reward at which an item counts as neither";

}  // namespace

// kappa is beta itself, as in the public code of Diffusion-KTO.
std::vector<Objective> unpaired_rows() {
  return {
      {{.name = "kto",
        .data = DataKind::kUnpaired,
        .needs_reference = true,
        .compares_groups = true,
        .kappa_per_beta = 1,
        .default_beta = 1000,
        .paper = "arXiv 2404.04465",
        .summary = "utility of single items that are desirable or not"},
       kto_loss},
      {{.name = "kto-threshold",
        .data = DataKind::kUnpaired,
        .needs_reference = true,
        .compares_groups = true,
        .parameters = {{"threshold", 0.5, -1e9, 1e9, "items that score above are desirable"}},
        .kappa_per_beta = 1,
        .default_beta = 1000,
        .paper = "arXiv 2605.04653",
        .summary = "kto with labels from a threshold on the scores"},
       kto_loss,
       labels_from_threshold},
      {{.name = "bco-unpaired",
        .data = DataKind::kUnpaired,
        .needs_reference = true,
        .parameters = {{"delta", 0, -1e3, 1e3, kDeltaHelp}},
        .kappa_per_beta = 1,
        .default_beta = 1000,
        .paper = "arXiv 2404.04656",
        .summary = "single items classified as desirable or not"},
       bco_unpaired_loss},
  };
}

}  // namespace prefusion::losses

#include "losses/registry_rows.h"

#include "losses/capo.h"
#include "losses/derived_labels.h"
#include "losses/dgpo.h"
#include "losses/dpo_all_pairs.h"
#include "losses/lambdarank.h"
#include "losses/list_net.h"
#include "losses/plackett_luce.h"
#include "losses/rankdpo.h"
#include "losses/ranklist.h"

namespace prefusion::losses {

// kappa_per_beta 0.5 as for pairs, unless a method has public code with another factor.
std::vector<Objective> list_rows() {
  return {
      {{.name = "rankdpo",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2410.18013",
        .summary = "DPO over all pairs of a list, weighted by DCG changes"},
       rankdpo_loss},
      {{.name = "lambdarank",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2402.01878",
        .summary = "rankdpo with ranks by the policy's own order"},
       lambdarank_loss},
      {{.name = "plackett-luce",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2510.01540",
        .summary = "likelihood of a list's order"},
       plackett_luce_loss},
      {{.name = "list-net",
        .data = DataKind::kList,
        .needs_reference = true,
        .parameters = {{"temperature", 1, 1e-3, 1e3, "of the softmax over preferences"}},
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "ListNet, ICML 2007",
        .summary = "cross-entropy of preferences and improvements"},
       list_net_loss},
      {{.name = "ranklist",
        .data = DataKind::kList,
        .needs_reference = true,
        .parameters = {{"strides", 2, 1, 1e3, "largest number of places", /*is_whole=*/true}},
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "RankList",
        .summary = "DPO between items some places apart in the order"},
       ranklist_loss},
      {{.name = "dpo-all-pairs",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2311.12908",
        .summary = "DPO averaged over all pairs of a list"},
       dpo_all_pairs_loss},
      {{.name = "dgpo",
        .data = DataKind::kList,
        .needs_reference = true,
        .kappa_per_beta = 1,
        .default_beta = 100,
        .paper = "arXiv 2510.08425",
        .summary = "errors weighted by standardised rewards of the group"},
       dgpo_loss,
       labels_from_scores},
      {{.name = "capo",
        .data = DataKind::kList,
        .needs_reference = true,
        .parameters = {{"scale", 1, 1e-6, 1e6, "factor of the scores before they are compared"}},
        .kappa_per_beta = 0.5,
        .default_beta = 5000,
        .paper = "arXiv 2502.02588",
        .summary = "regression on calibrated rewards of best and worst item"},
       capo_loss,
       labels_from_scores},
  };
}

}  // namespace prefusion::losses

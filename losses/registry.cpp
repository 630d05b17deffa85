#include "losses/registry.h"

#include <vector>

#include "core/error.h"
#include "losses/edit_distance.h"
#include "losses/online/online_objective.h"
#include "losses/registry_rows.h"
#include "losses/sft.h"

namespace prefusion::losses {
namespace {

std::vector<Objective> all_rows() {
  std::vector<Objective> rows = {
      {{.name = "sft", .data = DataKind::kSingle, .paper = "-", .summary = "denoising loss on the chosen item"},
       sft_loss},
  };
  for (auto& more : {pair_rows(), conditional_rows(), unpaired_rows(), list_rows()})
    rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}

}  // namespace

std::span<const Objective> objectives() {
  static const std::vector<Objective> kObjectives = all_rows();
  return kObjectives;
}

const Objective& find_objective(std::string_view name) {
  for (const Objective& objective : objectives()) {
    if (objective.info.name == name) return objective;
  }
  find_objective_info(name);
  fail_usage("objective '", name, "' trains on the policy's own samples, not on given data");
}

std::vector<const ObjectiveInfo*> listed_objectives() {
  std::vector<const ObjectiveInfo*> rows;
  for (const Objective& objective : objectives()) rows.push_back(&objective.info);
  for (const OnlineObjective& objective : online_objectives()) rows.push_back(&objective.info);
  return rows;
}

const ObjectiveInfo& find_objective_info(std::string_view name) {
  std::vector<std::string> names;
  for (const ObjectiveInfo* info : listed_objectives()) {
    if (info->name == name) return *info;
    names.push_back(info->name);
  }
  std::string known;
  for (const auto& other : names) known += (known.empty() ? "" : ", ") + other;
  fail_usage("unknown objective '", name, "'; did you mean '", nearest_name(name, names), "'? Known: ", known);
}

}  // namespace prefusion::losses

#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "losses/objective.h"

namespace prefusion::losses {

// Every objective on given data, in the order of --list-objectives.
std::span<const Objective> objectives();

// The objective of that name; usage error with the nearest and all known names otherwise.
const Objective& find_objective(std::string_view name);

// What --list-objectives lists: the objectives on given data, then the online ones that can be trained.
std::vector<const ObjectiveInfo*> listed_objectives();

// The row of that name among them; usage error with the nearest and all known names otherwise.
const ObjectiveInfo& find_objective_info(std::string_view name);

// The parameters of a run. `args` is the text of --objective-args, "k=v,k2=v2" (empty for none). Usage error for an
// unknown or repeated name, a value that is no number, out of range or none of the choices, beta and kappa both given,
// or either for an objective that has no kappa. Without both, kappa is that of the objective's default beta.
ObjectiveParams resolve_params(const ObjectiveInfo& info, std::string_view args, std::optional<double> beta,
                               std::optional<double> kappa);

// "kappa 2500 (beta 5000), label_smoothing 0.1" for the first log lines of a run.
std::string describe_params(const ObjectiveInfo& info, const ObjectiveParams& params);

// The same as strings, "kappa" included where there is one, for file metadata.
std::map<std::string, std::string> params_metadata(const ObjectiveParams& params);

// The text of --list-objectives: a header and a line for each objective, columns aligned. Parameters stand with their
// defaults; of a choice all words are shown, the default first.
std::string objective_table();

}  // namespace prefusion::losses

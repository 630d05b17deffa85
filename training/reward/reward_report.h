#pragma once

#include <string>

#include "core/json_config.h"

namespace prefusion::training {

// report.json of a reward model as a small table.
std::string reward_report_text(const Json& report);

}  // namespace prefusion::training

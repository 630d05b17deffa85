#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/filter_data.h"

namespace prefusion::tools {

// What was read, what each rule did with examples, and how margins, quality and prompts changed (docs/curation.md).
nlohmann::ordered_json filter_report(const FilterRequest& request, const FilterResult& result);

// A few lines for the terminal.
std::string filter_summary(const nlohmann::ordered_json& report);

// The report as a page that stands alone.
std::string filter_html(const nlohmann::ordered_json& report);

}  // namespace prefusion::tools

#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tools/command.h"
#include "tools/inspection.h"

namespace prefusion::tools {

struct InspectOptions : CommonOptions {
  std::string path;
  std::string model;          // what a LoRA is matched against
  int64_t max_groups = 2000;  // of a dataset, whose images are read
  bool json = false;
};

void add_inspect_options(CLI::App& app, InspectOptions& options);

// Finds out what `options.path` is and looks into it. Input error when nothing is there, or when it is none of the
// things prefusion knows.
Inspection inspect(const InspectOptions& options);

}  // namespace prefusion::tools

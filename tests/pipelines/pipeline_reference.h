#pragma once

#include <filesystem>

#include "tests/support/python_reference.h"

namespace prefusion::pipelines {

// What make_pipelines.py writes, made once for all tests of the program.
inline const std::filesystem::path& pipeline_reference() {
  static const std::filesystem::path kFolder = tests::run_reference_script("make_pipelines.py");
  return kFolder;
}

}  // namespace prefusion::pipelines

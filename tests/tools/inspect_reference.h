#pragma once

#include <filesystem>

#include "tests/support/python_reference.h"

namespace prefusion::tests {

// What make_inspect.py wrote; run once for all suites of a program.
inline const std::filesystem::path& inspect_reference() {
  static const std::filesystem::path folder = run_reference_script("make_inspect.py");
  return folder;
}

}  // namespace prefusion::tests

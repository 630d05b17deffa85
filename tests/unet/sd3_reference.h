#pragma once

#include <filesystem>

#include "tests/support/python_reference.h"

namespace prefusion::unet {

// What tests/reference/make_transformers_sd3.py makes, once for all tests of the program.
inline const std::filesystem::path& sd3_reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_transformers_sd3.py");
  return folder;
}

}  // namespace prefusion::unet

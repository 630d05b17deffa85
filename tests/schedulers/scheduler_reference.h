#pragma once

#include <filesystem>

#include "core/json_config.h"
#include "core/safetensors.h"
#include "tests/support/python_reference.h"

namespace prefusion::tests {

// What make_schedulers.py found, run once for all tests of this program.
struct SchedulerReferenceData {
  Json cases;
  TensorMap tensors;
};

inline const SchedulerReferenceData& scheduler_reference() {
  static const SchedulerReferenceData data = [] {
    const std::filesystem::path folder = run_reference_script("make_schedulers.py");
    return SchedulerReferenceData{read_json(folder / "cases.json"), read_safetensors(folder / "tensors.safetensors")};
  }();
  return data;
}

}  // namespace prefusion::tests

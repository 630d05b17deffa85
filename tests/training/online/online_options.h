#pragma once

#include <filesystem>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "tests/support/temp_dir.h"
#include "training/align_options.h"

namespace prefusion::tests {

// Options of a small online run of the bundled model, with prompts in `folder`.
inline training::AlignOptions online_options(const TempDir& folder, const std::string& objective) {
  write_file(folder / "prompts.txt", "a red circle\na blue square above a green circle\na cyan triangle\n");
  training::AlignOptions options;
  options.model = PREFUSION_SHAPES_MODEL;
  options.objective = objective;
  options.adapter = "full";
  options.steps = 2;
  options.batch_size = 2;
  options.seed = 11;
  options.online.prompts = folder / "prompts.txt";
  options.online.prompts_per_round = 2;
  options.online.group_size = 2;
  options.online.sampling_steps = 3;
  return options;
}

// The bundled model with its network taken for a flow model, in `folder`.
inline std::filesystem::path flow_model(const TempDir& folder) {
  const std::filesystem::path model = folder / "flow";
  std::filesystem::copy(PREFUSION_SHAPES_MODEL, model, std::filesystem::copy_options::recursive);
  Json index = read_json(model / "model_index.json");
  index["scheduler"] = {"diffusers", "FlowMatchEulerDiscreteScheduler"};
  write_file(model / "model_index.json", index.dump());
  write_file(model / "scheduler" / "scheduler_config.json",
             R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})");
  return model;
}

}  // namespace prefusion::tests

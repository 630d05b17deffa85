#pragma once

#include <ATen/ATen.h>

#include <span>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "pipelines/keyed_request.h"
#include "tests/pipelines/pipeline_reference.h"
#include "tests/support/temp_dir.h"

namespace prefusion::pipelines {

inline TextToImage load_reference_model(const std::string& name, at::ScalarType dtype = at::kFloat) {
  return TextToImage::load(pipeline_reference() / "models" / name, dtype, at::kCPU);
}

inline std::vector<KeyedRequest> make_requests(size_t count) {
  const std::vector<std::string> prompts = {"a photo of a red circle", "two dogs", "a blue square", ""};
  std::vector<KeyedRequest> requests;
  for (size_t i = 0; i < count; ++i) {
    requests.push_back({.prompt = prompts[i % prompts.size()],
                        .negative_prompt = i == 1 ? "cats" : "",
                        .key = {.seed = 9, .item = 100 + i, .draw = 2}});
  }
  return requests;
}

// What make_trajectories.py is to recompute.
struct ReferenceRun {
  std::string model;
  int64_t steps;
  double eta;
  GuidanceOptions guidance;
  std::vector<int64_t> gradient_steps;
};

inline TensorMap run_trajectory_reference(const ReferenceRun& run, std::span<const KeyedRequest> requests,
                                          const TensorMap& noise) {
  const tests::TempDir folder;
  write_safetensors(folder / "noise.safetensors", noise);
  Json settings = {{"steps", run.steps},
                   {"eta", run.eta},
                   {"guidance_scale", run.guidance.scale},
                   {"guidance_rescale", run.guidance.rescale},
                   {"gradient_steps", run.gradient_steps}};
  for (const KeyedRequest& request : requests) {
    settings["prompts"].push_back(request.prompt);
    settings["negative_prompts"].push_back(request.negative_prompt);
  }
  write_file(folder / "settings.json", settings.dump());
  const std::filesystem::path model = pipeline_reference() / "models" / run.model;
  const std::filesystem::path found = tests::run_reference_script(
      "make_trajectories.py",
      {model.string(), (folder / "noise.safetensors").string(), (folder / "settings.json").string()});
  return read_safetensors(found / "found.safetensors");
}

}  // namespace prefusion::pipelines

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/contender.h"
#include "tools/picture_batches.h"
#include "training/evaluate_pairs.h"
#include "training/picture_judge.h"

namespace prefusion::tools {

// What `prefusion evaluate` is asked for.
struct EvaluateOptions {
  std::vector<Contender> models;
  std::filesystem::path baseline;
  std::vector<std::string> baseline_loras;  // PATH[:SCALE], on the baseline
  std::filesystem::path prompts_file;       // exactly one of prompts_file and held_out
  int64_t held_out = 0;                     // so many held-out captions of the shapes world
  std::string negative_prompt;
  std::vector<std::string> rewards = {"shapes"};  // training::JudgeOptions
  std::vector<std::string> reward_arguments;
  std::optional<double> margin;
  int64_t num_images = 1;  // a prompt
  uint64_t seed = 0;       // of the first picture; every further one counts up, over all prompts
  PictureBatchOptions batches;
  training::PreferencePairsOptions preferences;  // labelled pairs for the implicit reward
  std::filesystem::path output;
  std::filesystem::path run;  // output folder of align, for its curves; may be empty
  bool save_pictures = false;
  bool shows_progress = true;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;

  training::JudgeOptions judge() const {
    return {.rewards = rewards, .arguments = reward_arguments, .margin = margin, .dtype = dtype, .device = device};
  }
};

// All pictures of one model, in the order of the requests: uint8 [H, W, 3] RGB.
using Pictures = std::vector<at::Tensor>;

// One model against the baseline.
struct Evaluation {
  std::string name;  // of the model, different from all others'
  std::vector<training::JudgeAxis> axes;
  std::vector<training::JudgedPair> pairs;
  training::EvaluationSummary summary;
  Pictures baseline_pictures;
  Pictures model_pictures;
};

// One request a picture, prompt by prompt. Every one has a seed of its own, so that a prompt that occurs twice shows
// two pictures; `prefusion generate` makes the same picture from prompt and seed.
std::vector<pipelines::ImageRequest> plan_requests(const EvaluateOptions& options);

// Compares models with one baseline, whose pictures are made once.
class ModelComparison {
 public:
  // Makes and judges the baseline's pictures. Usage error for prompts the judge cannot take and for arguments that are
  // wrong, before anything is loaded. `options` must outlive this.
  explicit ModelComparison(const EvaluateOptions& options);

  // Makes the pictures of options.models[index] from the same seeds, judges and compares them.
  Evaluation compare(size_t index) const;

 private:
  const EvaluateOptions& options_;
  std::unique_ptr<training::PictureJudge> judge_;
  std::vector<std::string> names_;
  std::vector<pipelines::ImageRequest> requests_;
  std::vector<std::string> prompts_;  // of the requests
  Pictures pictures_;
  std::vector<std::vector<double>> scores_;
  std::unique_ptr<training::ImplicitPreferenceTest> implicit_;  // null without labelled pairs
};

}  // namespace prefusion::tools

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tools/picture_batches.h"
#include "training/evaluate_pairs.h"

namespace prefusion::tools {

// What `prefusion evaluate` is asked for.
struct EvaluateOptions {
  std::filesystem::path model;
  std::filesystem::path baseline;
  std::vector<std::string> loras;           // PATH[:SCALE], on the model
  std::vector<std::string> baseline_loras;  // PATH[:SCALE], on the baseline
  std::filesystem::path prompts_file;       // exactly one of prompts_file and held_out
  int64_t held_out = 0;                     // so many held-out captions of the shapes world
  std::string negative_prompt;
  std::string reward = "shapes";
  double margin = shapes::kDefaultTasteMargin;
  int64_t num_images = 1;  // a prompt
  uint64_t seed = 0;       // of the first picture; every further one counts up, over all prompts
  PictureBatchOptions batches;
  std::filesystem::path output;
  std::filesystem::path run;  // output folder of align, for its curves; may be empty
  bool save_pictures = false;
  bool shows_progress = true;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

// All pictures of one model, in the order of the requests: uint8 [H, W, 3] RGB.
using Pictures = std::vector<at::Tensor>;

struct Evaluation {
  std::vector<training::JudgedPair> pairs;
  training::EvaluationSummary summary;
  Pictures baseline_pictures;
  Pictures model_pictures;
};

// One request a picture, prompt by prompt. Every one has a seed of its own, so that a prompt that occurs twice shows
// two pictures; `prefusion generate` makes the same picture from prompt and seed.
std::vector<pipelines::ImageRequest> plan_requests(const EvaluateOptions& options);

// Makes the pictures of both models from the same seeds, judges and compares them. Usage error for prompts the judge
// cannot take, before anything is loaded.
Evaluation evaluate_models(const EvaluateOptions& options);

}  // namespace prefusion::tools

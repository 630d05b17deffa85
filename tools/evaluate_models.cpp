#include "tools/evaluate_models.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/progress.h"
#include "data/prompt_list.h"
#include "shapes/caption.h"
#include "tools/generate_images.h"
#include "training/picture_judge.h"

namespace prefusion::tools {
namespace {

std::vector<data::PromptEntry> gather_prompts(const EvaluateOptions& options) {
  check_usage((options.held_out > 0) != !options.prompts_file.empty(), "give either --prompts FILE or --held-out N");
  if (!options.prompts_file.empty()) return data::read_prompts(options.prompts_file);
  std::vector<data::PromptEntry> prompts;
  // The captions are the same for every --seed: seeds vary the pictures.
  for (auto& caption : shapes::held_out_captions(options.held_out, /*seed=*/0)) prompts.push_back({.prompt = caption});
  return prompts;
}

Pictures make_pictures(const std::filesystem::path& model, const std::vector<std::string>& loras,
                       const std::string& title, const std::vector<pipelines::ImageRequest>& requests,
                       const EvaluateOptions& options) {
  pipelines::TextToImage pipeline = pipelines::TextToImage::load(model, options.dtype, options.device);
  attach_loras(loras, pipeline.components());
  Pictures pictures;
  Progress progress(title, static_cast<int64_t>(requests.size()), "image", options.shows_progress);
  generate_in_batches(pipeline, requests, options.batches, [&](size_t index, const at::Tensor& image) {
    pictures.push_back(image.clone());  // the batch's memory is not kept
    progress.update(static_cast<int64_t>(index) + 1);
  });
  return pictures;
}

void check_loras(const EvaluateOptions& options) {
  for (const auto& lora : options.loras) parse_lora_argument(lora);
  for (const auto& lora : options.baseline_loras) parse_lora_argument(lora);
}

}  // namespace

std::vector<pipelines::ImageRequest> plan_requests(const EvaluateOptions& options) {
  check_usage(options.num_images >= 1, "--num-images must be at least 1");
  std::vector<pipelines::ImageRequest> requests;
  for (const data::PromptEntry& entry : gather_prompts(options)) {
    const uint64_t first = entry.seed.value_or(options.seed + requests.size());
    for (int64_t i = 0; i < options.num_images; ++i) {
      requests.push_back({.prompt = entry.prompt,
                          .negative_prompt = entry.negative_prompt.value_or(options.negative_prompt),
                          .seed = first + static_cast<uint64_t>(i)});
    }
  }
  return requests;
}

Evaluation evaluate_models(const EvaluateOptions& options) {
  const auto judge = training::make_judge(options.reward, options.margin);
  check_loras(options);
  const std::vector<pipelines::ImageRequest> requests = plan_requests(options);
  for (const auto& request : requests) judge->check_prompt(request.prompt);

  Evaluation result;
  result.baseline_pictures = make_pictures(options.baseline, options.baseline_loras, "baseline", requests, options);
  result.model_pictures = make_pictures(options.model, options.loras, "model", requests, options);
  for (size_t i = 0; i < requests.size(); ++i) {
    training::JudgedPair pair{.prompt = requests[i].prompt,
                              .seed = requests[i].seed,
                              .baseline = judge->score(result.baseline_pictures[i], requests[i].prompt),
                              .model = judge->score(result.model_pictures[i], requests[i].prompt)};
    pair.verdict = judge->compare(pair.model, pair.baseline);
    pair.advantage = judge->advantage(pair.model, pair.baseline);
    result.pairs.push_back(std::move(pair));
  }
  result.summary = training::summarize(result.pairs, *judge);
  return result;
}

}  // namespace prefusion::tools

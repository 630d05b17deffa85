#include "tools/evaluate_models.h"

#include <ATen/ATen.h>

#include <algorithm>

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

// `user_states`: of whom the pictures are for, or undefined.
Pictures make_pictures(pipelines::TextToImage& pipeline, const at::Tensor& user_states, const std::string& title,
                       const std::vector<pipelines::ImageRequest>& requests, const EvaluateOptions& options) {
  PictureBatchOptions batches = options.batches;
  batches.sampling.user_states = user_states;
  Pictures pictures;
  Progress progress(title, static_cast<int64_t>(requests.size()), "image", options.shows_progress);
  generate_in_batches(pipeline, requests, batches, [&](size_t index, const at::Tensor& image) {
    pictures.push_back(image.clone());  // the batch's memory is not kept
    progress.update(static_cast<int64_t>(index) + 1);
  });
  return pictures;
}

void check_adapters(const EvaluateOptions& options) {
  for (const Contender& model : options.models) {
    for (const auto& lora : model.loras) parse_lora_argument(lora);
    if (!model.user_adapter.empty()) parse_lora_argument(model.user_adapter, "--user-adapter");
    check_usage(model.user.empty() || !model.user_adapter.empty(), "--user needs --user-adapter, which knows users");
    parse_user_argument(model.user);
  }
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

ModelComparison::ModelComparison(const EvaluateOptions& options)
    : options_(options), judge_(training::make_judge(options.judge())) {
  check_usage(!options.models.empty(), "--model is missing: nothing to compare with the baseline");
  check_adapters(options);
  names_ = distinct_names(options.models);
  requests_ = plan_requests(options);
  for (const auto& request : requests_) judge_->check_prompt(request.prompt);
  pipelines::TextToImage baseline =
      load_contender({options.baseline, options.baseline_loras}, options.dtype, options.device);
  if (!options.preferences.data.empty()) {
    implicit_ = std::make_unique<training::ImplicitPreferenceTest>(options.preferences, options.baseline,
                                                                   baseline.components().denoiser, options.seed,
                                                                   options.dtype, options.device);
  }
  pictures_ = make_pictures(baseline, {}, "baseline", requests_, options);
  for (const auto& request : requests_) prompts_.push_back(request.prompt);
  scores_ = judge_->score_all(pictures_, prompts_);
}

Evaluation ModelComparison::compare(size_t index) const {
  const std::string title = names_.size() > 1 ? names_.at(index) : "model";
  Evaluation result{
      .name = names_.at(index), .axes = judge_->axes(), .pairs = {}, .summary = {}, .baseline_pictures = pictures_};
  const Contender& contender = options_.models.at(index);
  pipelines::TextToImage model = load_contender(contender, options_.dtype, options_.device);
  const at::Tensor user_states = attach_users(contender, model);
  result.model_pictures = make_pictures(model, user_states, title, requests_, options_);
  const std::vector<std::vector<double>> scores = judge_->score_all(result.model_pictures, prompts_);
  for (size_t i = 0; i < requests_.size(); ++i) {
    training::JudgedPair pair{
        .prompt = requests_[i].prompt, .seed = requests_[i].seed, .baseline = scores_[i], .model = scores[i]};
    pair.verdict = judge_->compare(pair.model, pair.baseline);
    pair.advantage = judge_->advantage(pair.model, pair.baseline);
    result.pairs.push_back(std::move(pair));
  }
  result.summary = training::summarize(result.pairs, *judge_);
  if (implicit_) result.summary.implicit = implicit_->measure(*model.components().denoiser, user_states);
  return result;
}

}  // namespace prefusion::tools

#include "tools/prompt_judge.h"

#include <ATen/ATen.h>

#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"
#include "images/image_encode.h"
#include "tools/contender.h"

namespace prefusion::tools {

Json PromptJudgeOptions::settings() const {
  Json reward_rows = Json::array();
  for (const reward_models::RewardSpec& spec : rewards) {
    reward_rows.push_back({{"reward", spec.column}, {"path", spec.path.string()}, {"options", spec.options}});
  }
  return {{"model", model},
          {"rewards", reward_rows},
          {"intent", intent},
          {"num_images", num_images},
          {"seed", seed},
          {"steps", sampling.num_inference_steps},
          {"guidance_scale", sampling.guidance.scale},
          {"scheduler", sampling.scheduler},
          {"height", sampling.height_px},
          {"width", sampling.width_px},
          {"dtype", c10::toString(dtype)}};
}

PromptJudge::PromptJudge(const PromptJudgeOptions& options)
    : options_(options), pipeline_(load_contender(parse_contender(options.model), options.dtype, options.device)) {
  pipeline_.image_size(options.sampling);
  if (options.rewards.empty()) return;
  scorer_.emplace(options.rewards, reward_models::ScorerOptions{.dtype = options.dtype, .device = options.device});
  if (!scorer_->uses_prompts()) return;
  check_usage(!options.intent.empty(),
              "--intent: the rewards judge pictures under a prompt; say what the pictures should show");
  scorer_->check_prompts({options.intent});
}

at::Tensor PromptJudge::draw(const std::string& prompt, int64_t duel) {
  std::vector<pipelines::ImageRequest> requests;
  for (int64_t i = 0; i < options_.num_images; ++i) {
    requests.push_back(
        {.prompt = prompt, .seed = options_.seed + static_cast<uint64_t>(duel * options_.num_images + i)});
  }
  return pipeline_.generate(requests, options_.sampling);
}

at::Tensor PromptJudge::scores(const std::string& prompt, int64_t duel) {
  const std::vector<at::Tensor> pictures = draw(prompt, duel).unbind(0);
  return scorer_->score_pictures(pictures, std::vector<std::string>(pictures.size(), options_.intent));
}

double PromptJudge::compare(const std::string& first, const std::string& second, int64_t duel) {
  const at::Tensor gained = scores(first, duel) - scores(second, duel);  // [K, R]
  return (gained.gt(0).to(at::kDouble) + 0.5 * gained.eq(0).to(at::kDouble)).mean().item<double>();
}

void PromptJudge::write(const std::string& first, const std::string& second, int64_t duel,
                        const std::filesystem::path& folder) {
  make_folder(folder);
  const auto write_one = [&](const std::string& prompt, const char* side) {
    const std::vector<at::Tensor> pictures = draw(prompt, duel).unbind(0);
    for (size_t i = 0; i < pictures.size(); ++i) {
      char name[64];
      std::snprintf(name, sizeof name, "duel-%04lld-%s-%zu.png", static_cast<long long>(duel + 1), side, i);
      write_file(folder / name, images::encode_png(pictures[i].contiguous()));
    }
  };
  write_one(first, "a");
  write_one(second, "b");
}

}  // namespace prefusion::tools

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "pipelines/text_to_image.h"
#include "reward_models/scorer.h"

namespace prefusion::tools {

struct PromptJudgeOptions {
  std::string model;  // parse_contender
  std::vector<reward_models::RewardSpec> rewards;
  std::string intent;      // what rewards judge pictures by
  int64_t num_images = 4;  // of each prompt in a duel
  uint64_t seed = 0;
  pipelines::GenerateOptions sampling;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;

  // Everything a verdict depends on.
  Json settings() const;
};

// Draws the pictures of duels, and decides them by reward models. Both prompts of duel n (from 0) have the same seeds,
// seed + n * num_images and the next ones: two that meet again are judged by new pictures.
class PromptJudge {
 public:
  // Usage error when a reward depends on the prompt and there is no intent, or cannot judge by it.
  explicit PromptJudge(const PromptJudgeOptions& options);

  // uint8 [num_images, H, W, 3].
  at::Tensor draw(const std::string& prompt, int64_t duel);
  // The share of the first prompt's pictures that score higher than the second's of the same seed, over all rewards;
  // equal scores are one half.
  double compare(const std::string& first, const std::string& second, int64_t duel);

  // Writes the pictures of a duel as FOLDER/duel-0007-a-0.png, -b-0.png and so on; 7 is the duel's number from 1.
  void write(const std::string& first, const std::string& second, int64_t duel, const std::filesystem::path& folder);

 private:
  at::Tensor scores(const std::string& prompt, int64_t duel);

  PromptJudgeOptions options_;
  pipelines::TextToImage pipeline_;
  std::optional<reward_models::Scorer> scorer_;
};

}  // namespace prefusion::tools

#pragma once

#include <ATen/core/Tensor.h>

#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "images/picture.h"
#include "reward_models/registry.h"

namespace prefusion::reward_models {

// A picture ready for every tower of a scorer.
using PreparedPicture = std::vector<at::Tensor>;  // one a distinct preparation, in the scorer's order

struct ScorerOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t batch_size = 32;                        // pictures a tower sees at once
  size_t prompt_cache_bytes = size_t{256} << 20;  // features of prompts that are kept
};

struct NamedReward {
  std::string column;
  std::unique_ptr<RewardModel> model;
};

// Several reward models in one pass: a picture is prepared once a distinct preparation, goes once through each distinct
// tower, and a distinct prompt is encoded once for all models that see it alike.
class Scorer {
 public:
  Scorer(const std::vector<RewardSpec>& specs, const ScorerOptions& options);
  // The same of models that are there.
  Scorer(std::vector<NamedReward> rewards, const ScorerOptions& options);
  ~Scorer();

  // The names of the scores, as in the specs.
  const std::vector<std::string>& columns() const { return columns_; }
  const RewardModel& model(size_t index) const { return *models_[index]; }

  // Whether any score depends on the prompt.
  bool uses_prompts() const;
  // Usage or input error for the first prompt that one of the models cannot score pictures under.
  void check_prompts(const std::vector<std::string>& prompts) const;

  // Encodes prompts anew from here on. Features of a prompt may differ in the last bit with those it is encoded
  // together with; after this they depend on nothing that came before.
  void forget_prompts();

  // Safe to call from several threads.
  PreparedPicture prepare(const images::Picture& picture) const;

  // Scores of N pictures, each under its prompt: fp64 [N, R] on the CPU. Pictures of a batch that share their prepared
  // tensors go through a tower once. On the CPU equal batches give equal bits, whatever was scored before.
  at::Tensor score(const std::vector<PreparedPicture>& pictures, const std::vector<std::string>& prompts);

  // The same of uint8 [H, W, 3] pictures.
  at::Tensor score_pictures(const std::vector<at::Tensor>& pictures, const std::vector<std::string>& prompts);

 private:
  class PromptFeatures;
  at::Tensor score_batch(const std::vector<PreparedPicture>& pictures, const std::vector<std::string>& prompts);

  ScorerOptions options_;
  std::vector<std::string> columns_;
  std::vector<std::unique_ptr<RewardModel>> models_;
  std::vector<std::unique_ptr<PromptFeatures>> prompts_;  // one a distinct way to encode them
  std::vector<size_t> prompts_of_model_;
  std::vector<std::shared_ptr<PictureTower>> towers_;  // distinct
  std::vector<size_t> tower_of_model_;
  std::vector<size_t> preparation_of_tower_;
  std::vector<size_t> tower_of_preparation_;  // the one whose prepare() is called
};

}  // namespace prefusion::reward_models

#include "reward_models/scorer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

// The position of `value` in `values`, where it is appended if it is new.
template <typename T>
size_t index_of(std::vector<T>& values, const T& value) {
  const auto found = std::find(values.begin(), values.end(), value);
  const auto index = static_cast<size_t>(found - values.begin());
  if (found == values.end()) values.push_back(value);
  return index;
}

// Features of pictures, those that are the same tensor computed once: [N, ...].
at::Tensor features_of(PictureTower& tower, const std::vector<at::Tensor>& prepared) {
  std::vector<const void*> seen;
  std::vector<at::Tensor> distinct;
  std::vector<int64_t> rows;
  for (const at::Tensor& picture : prepared) {
    const size_t row = index_of(seen, static_cast<const void*>(picture.unsafeGetTensorImpl()));
    if (seen.size() > distinct.size()) distinct.push_back(picture);
    rows.push_back(static_cast<int64_t>(row));
  }
  at::Tensor features = tower.features(distinct);
  if (distinct.size() == prepared.size()) return features;
  return features.index_select(0, at::tensor(rows, at::kLong).to(features.device()));
}

std::vector<NamedReward> open_rewards(const std::vector<RewardSpec>& specs, const ScorerOptions& options) {
  SharedParts shared;
  const RewardContext context{.dtype = options.dtype, .device = options.device, .shared = &shared};
  std::vector<NamedReward> rewards;
  for (const RewardSpec& spec : specs) rewards.push_back({spec.column, open_reward(spec, context)});
  return rewards;
}

}  // namespace

// Features of the prompts that one model, or several with the same encoder, have seen, the least recently used ones
// forgotten first.
class Scorer::PromptFeatures {
 public:
  explicit PromptFeatures(size_t max_bytes) : max_bytes_(max_bytes) {}

  // [N, ...] in the order of the prompts, each distinct new one encoded once.
  at::Tensor get(RewardModel& model, const std::vector<std::string>& prompts) {
    std::vector<std::string> distinct;
    std::vector<int64_t> rows;
    for (const std::string& prompt : prompts) rows.push_back(static_cast<int64_t>(index_of(distinct, prompt)));
    std::vector<std::string> unknown;
    for (const std::string& prompt : distinct) {
      if (!entries_.contains(prompt)) unknown.push_back(prompt);
    }
    at::Tensor encoded = unknown.empty() ? at::Tensor() : model.prompt_features(unknown);
    std::vector<at::Tensor> features;
    int64_t next_unknown = 0;
    for (const std::string& prompt : distinct) {
      const auto found = entries_.find(prompt);
      if (found == entries_.end()) {
        features.push_back(encoded[next_unknown++].clone());
      } else {
        order_.splice(order_.begin(), order_, found->second.place);
        features.push_back(found->second.features);
      }
    }
    for (size_t i = 0; i < distinct.size(); ++i) remember(distinct[i], features[i]);
    return at::stack(features).index_select(0, at::tensor(rows, at::kLong).to(features.front().device()));
  }

 private:
  struct Entry {
    at::Tensor features;
    std::list<std::string>::iterator place;
  };

  void remember(const std::string& prompt, const at::Tensor& features) {
    if (entries_.contains(prompt)) return;
    order_.push_front(prompt);
    entries_[prompt] = {features, order_.begin()};
    bytes_ += features.nbytes();
    while (bytes_ > max_bytes_ && order_.size() > 1) {
      bytes_ -= entries_.at(order_.back()).features.nbytes();
      entries_.erase(order_.back());
      order_.pop_back();
    }
  }

  size_t max_bytes_;
  size_t bytes_ = 0;
  std::list<std::string> order_;  // most recently used first
  std::unordered_map<std::string, Entry> entries_;
};

Scorer::Scorer(const std::vector<RewardSpec>& specs, const ScorerOptions& options)
    : Scorer(open_rewards(specs, options), options) {}

Scorer::Scorer(std::vector<NamedReward> rewards, const ScorerOptions& options) : options_(options) {
  check_usage(!rewards.empty(), "give at least one --reward KIND=PATH");
  std::vector<std::string> prompt_keys;
  std::vector<std::string> tower_keys;
  std::vector<std::string> preparation_keys;
  for (NamedReward& reward : rewards) {
    const RewardModel& model = *reward.model;
    const std::string prompt_key = model.prompt_key();
    prompts_of_model_.push_back(index_of(prompt_keys, prompt_key.empty() ? concat("of ", reward.column) : prompt_key));
    columns_.push_back(std::move(reward.column));
    models_.push_back(std::move(reward.model));
    const std::shared_ptr<PictureTower>& tower = model.tower();
    tower_of_model_.push_back(index_of(tower_keys, tower->key()));
    if (tower_keys.size() == towers_.size()) continue;
    towers_.push_back(tower);
    preparation_of_tower_.push_back(index_of(preparation_keys, tower->preparation_key()));
    if (preparation_keys.size() > tower_of_preparation_.size()) tower_of_preparation_.push_back(towers_.size() - 1);
  }
  prompts_.resize(prompt_keys.size());
  forget_prompts();
}

Scorer::~Scorer() = default;

bool Scorer::uses_prompts() const {
  return std::any_of(models_.begin(), models_.end(), [](const auto& model) { return model->uses_prompts(); });
}

void Scorer::check_prompts(const std::vector<std::string>& prompts) const {
  for (const auto& model : models_) {
    if (!model->uses_prompts()) continue;
    for (const std::string& prompt : prompts) model->check_prompt(prompt);
  }
}

void Scorer::forget_prompts() {
  for (auto& features : prompts_) features = std::make_unique<PromptFeatures>(options_.prompt_cache_bytes);
}

PreparedPicture Scorer::prepare(const images::Picture& picture) const {
  PreparedPicture prepared;
  for (const size_t tower : tower_of_preparation_) prepared.push_back(towers_[tower]->prepare(picture));
  return prepared;
}

at::Tensor Scorer::score_batch(const std::vector<PreparedPicture>& pictures, const std::vector<std::string>& prompts) {
  std::vector<at::Tensor> features;
  for (size_t tower = 0; tower < towers_.size(); ++tower) {
    std::vector<at::Tensor> prepared;
    for (const PreparedPicture& picture : pictures) prepared.push_back(picture[preparation_of_tower_[tower]]);
    features.push_back(features_of(*towers_[tower], prepared));
  }
  std::vector<at::Tensor> scores;
  for (size_t i = 0; i < models_.size(); ++i) {
    RewardModel& model = *models_[i];
    const at::Tensor prompt_rows =
        model.uses_prompts() ? prompts_[prompts_of_model_[i]]->get(model, prompts) : at::Tensor();
    scores.push_back(model.score(features[tower_of_model_[i]], prompt_rows).to(at::kDouble));
  }
  return at::stack(scores, 1);
}

at::Tensor Scorer::score(const std::vector<PreparedPicture>& pictures, const std::vector<std::string>& prompts) {
  check_usage(pictures.size() == prompts.size(), "there are ", pictures.size(), " pictures but ", prompts.size(),
              " prompts");
  const c10::InferenceMode no_gradients;
  std::vector<at::Tensor> rows = {at::empty({0, static_cast<int64_t>(models_.size())}, at::kDouble)};
  const auto batch_size = static_cast<size_t>(options_.batch_size);
  for (size_t begin = 0; begin < pictures.size(); begin += batch_size) {
    const size_t end = std::min(begin + batch_size, pictures.size());
    rows.push_back(score_batch({pictures.begin() + begin, pictures.begin() + end},
                               {prompts.begin() + begin, prompts.begin() + end}));
  }
  return at::cat(rows);
}

at::Tensor Scorer::score_pictures(const std::vector<at::Tensor>& pictures, const std::vector<std::string>& prompts) {
  std::vector<PreparedPicture> prepared;
  for (const at::Tensor& picture : pictures) prepared.push_back(prepare(images::rgb_picture(picture)));
  return score(prepared, prompts);
}

}  // namespace prefusion::reward_models

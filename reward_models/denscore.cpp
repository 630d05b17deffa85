#include "reward_models/denscore.h"

#include <ATen/ATen.h>

#include "reward_models/clip_model.h"
#include "text/sentences.h"

namespace prefusion::reward_models {
namespace {

at::Tensor unit_rows(const at::Tensor& features) {
  return features / features.norm(2, {-1}, /*keepdim=*/true);
}

class Denscore : public RewardModel {
 public:
  explicit Denscore(const ClipParts& parts) : tower_(parts.pictures()), prompts_(parts.prompts()) {}

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }

  // fp32 [P, D]: the mean of a caption's unit vectors, one a sentence. It is shorter than one, as the score needs it.
  at::Tensor prompt_features(const std::vector<std::string>& prompts) override {
    std::vector<at::Tensor> means;
    for (const std::string& prompt : prompts)
      means.push_back(unit_rows(prompts_->encode(text::split_caption(prompt))).mean(0));
    return at::stack(means);
  }

  PromptFacts prompt_facts(const std::string& prompt) const override {
    PromptFacts sum;
    for (const std::string& sentence : text::split_caption(prompt)) {
      const PromptFacts facts = prompts_->facts(sentence);
      sum.num_tokens += facts.num_tokens;
      sum.num_truncated += facts.num_truncated;
    }
    return sum;
  }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) override {
    return (unit_rows(picture_features.to(at::kFloat)) * prompt_features).sum(-1).cpu();
  }

 private:
  std::shared_ptr<PictureTower> tower_;
  std::shared_ptr<ClipPromptEncoder> prompts_;
};

}  // namespace

std::unique_ptr<RewardModel> open_denscore(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions(spec).finish();
  return std::make_unique<Denscore>(open_clip_folder(spec.path, context));
}

}  // namespace prefusion::reward_models

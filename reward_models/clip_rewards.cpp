#include "reward_models/clip_rewards.h"

#include <ATen/ATen.h>

namespace prefusion::reward_models {
namespace {

// scale * cosine, cut at zero or not, of a prompt behind a prefix.
class ClipReward : public RewardModel {
 public:
  struct Form {
    double scale = 1;
    bool is_cut_at_zero = false;
    std::string prefix;
  };

  ClipReward(const ClipParts& parts, Form form)
      : tower_(parts.pictures()), prompts_(parts.prompts()), form_(std::move(form)) {}

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }

  at::Tensor prompt_features(const std::vector<std::string>& prompts) override {
    std::vector<std::string> prefixed;
    for (const std::string& prompt : prompts) prefixed.push_back(form_.prefix + prompt);
    return prompts_->encode(prefixed);
  }

  PromptFacts prompt_facts(const std::string& prompt) const override { return prompts_->facts(form_.prefix + prompt); }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) override {
    at::Tensor cosine = cosines(picture_features, prompt_features);
    if (form_.is_cut_at_zero) cosine = cosine.clamp_min(0);
    return (cosine * form_.scale).cpu();
  }

 private:
  std::shared_ptr<PictureTower> tower_;
  std::shared_ptr<ClipPromptEncoder> prompts_;
  Form form_;
};

}  // namespace

std::unique_ptr<RewardModel> open_pickscore(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions(spec).finish();
  const ClipParts parts = open_clip_folder(spec.path, context);
  return std::make_unique<ClipReward>(parts, ClipReward::Form{.scale = parts.logit_scale});
}

std::unique_ptr<RewardModel> open_clip_score(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions options(spec);
  const double scale = options.number("scale", 100);
  const std::string prefix = options.text("prefix", "");
  options.finish();
  return std::make_unique<ClipReward>(open_clip_folder(spec.path, context),
                                      ClipReward::Form{.scale = scale, .is_cut_at_zero = true, .prefix = prefix});
}

}  // namespace prefusion::reward_models

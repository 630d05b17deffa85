#include "reward_models/clip_rewards.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "reward_models/open_clip_model.h"

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

  std::string prompt_key() const override {
    return form_.prefix.empty() ? prompts_->key() : concat(prompts_->key(), " behind '", form_.prefix, "'");
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

// What a model of open_clip needs beyond its path.
OpenClipOptions open_clip_options(const RewardSpec& spec, RewardOptions& options) {
  return {.kind = spec.column, .architecture = options.text("model", ""), .tokenizer = options.text("tokenizer", "")};
}

// HPSv2's own preparation, or open_clip's.
void read_hps_preparation(RewardOptions& options, OpenClipOptions& model) {
  const std::string resize = options.choice("resize", {"tensor", "pillow"});
  const std::string antialias = options.choice("antialias", {"on", "off"});
  check_usage(resize == "tensor" || antialias == "on",
              "--reward-args hpsv2.antialias=off goes with resize=tensor only");
  if (resize == "tensor") model.recipe = PreparationRecipe::kTensor;
  model.antialias = antialias == "on";
}

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
  const std::string layout = options.choice("layout", {"auto", "transformers", "open_clip"});
  const OpenClipOptions model = open_clip_options(spec, options);
  options.finish();
  const bool is_of_open_clip = layout == "open_clip" || (layout == "auto" && is_open_clip(spec.path));
  check_usage(is_of_open_clip || (model.architecture.empty() && model.tokenizer.empty()), "--reward-args ", spec.column,
              ".model and .tokenizer are for weights of open_clip; ", spec.path.string(), " is read as transformers'");
  const ClipParts parts =
      is_of_open_clip ? load_open_clip(spec.path, model, context) : open_clip_folder(spec.path, context);
  return std::make_unique<ClipReward>(parts,
                                      ClipReward::Form{.scale = scale, .is_cut_at_zero = true, .prefix = prefix});
}

std::unique_ptr<RewardModel> open_hpsv2(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions options(spec);
  OpenClipOptions model = open_clip_options(spec, options);
  read_hps_preparation(options, model);
  options.finish();
  model.default_architecture = "ViT-H-14";
  return std::make_unique<ClipReward>(load_open_clip(spec.path, model, context), ClipReward::Form{});
}

}  // namespace prefusion::reward_models

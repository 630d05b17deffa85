#include "reward_models/denscore.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "reward_models/clip_model.h"

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
      means.push_back(unit_rows(prompts_->encode(split_caption(prompt))).mean(0));
    return at::stack(means);
  }

  PromptFacts prompt_facts(const std::string& prompt) const override {
    PromptFacts sum;
    for (const std::string& sentence : split_caption(prompt)) {
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

// Length of the mark at which a caption is cut, 0 where there is none.
size_t mark_at(const std::string& caption, size_t position) {
  if (caption[position] == '.' || caption[position] == '?') return 1;
  return caption.compare(position, 2, "\"!") == 0 || caption.compare(position, 2, ";\"") == 0 ? 2 : 0;
}

}  // namespace

std::vector<std::string> split_caption(const std::string& caption) {
  std::vector<std::string> sentences;
  size_t begin = 0;
  const auto end_sentence = [&](size_t end) {
    if (end > begin) sentences.push_back(caption.substr(begin, end - begin) + ".");
  };
  for (size_t position = 0; position < caption.size();) {
    const size_t mark = mark_at(caption, position);
    if (mark > 0) {
      end_sentence(position);
      begin = position + mark;
    }
    position += std::max<size_t>(mark, 1);
  }
  end_sentence(caption.size());
  if (sentences.empty()) sentences.push_back(caption);
  return sentences;
}

std::unique_ptr<RewardModel> open_denscore(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions(spec).finish();
  return std::make_unique<Denscore>(open_clip_folder(spec.path, context));
}

}  // namespace prefusion::reward_models

#include "training/reward_judge.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "reward_models/scorer.h"

namespace prefusion::training {
namespace {

class RewardJudge : public PictureJudge {
 public:
  explicit RewardJudge(const JudgeOptions& options)
      : margin_(options.margin.value_or(0)),
        scorer_(reward_models::parse_reward_specs(options.rewards, options.arguments),
                {.dtype = options.dtype, .device = options.device}) {
    for (const std::string& column : scorer_.columns()) axes_.push_back({.name = column, .margin = margin_});
  }

  const std::vector<JudgeAxis>& axes() const override { return axes_; }

  void check_prompt(const std::string& prompt) const override { scorer_.check_prompts({prompt}); }

  std::vector<double> score(const at::Tensor& image, const std::string& prompt) const override {
    return score_all({image}, {prompt}).front();
  }

  std::vector<std::vector<double>> score_all(const std::vector<at::Tensor>& images,
                                             const std::vector<std::string>& prompts) const override {
    const at::Tensor scores = scorer_.score_pictures(images, prompts).contiguous();
    std::vector<std::vector<double>> rows;
    const double* values = scores.const_data_ptr<double>();
    for (size_t i = 0; i < images.size(); ++i, values += axes_.size()) rows.emplace_back(values, values + axes_.size());
    return rows;
  }

  shapes::Verdict compare(std::span<const double> first, std::span<const double> second) const override {
    int balance = 0;
    for (size_t i = 0; i < axes_.size(); ++i) {
      balance += (first[i] - second[i] > margin_) - (second[i] - first[i] > margin_);
    }
    return balance > 0 ? shapes::Verdict::kFirst : balance < 0 ? shapes::Verdict::kSecond : shapes::Verdict::kTie;
  }

  // Scales of different models do not compare: with several, the first decides how far apart two pictures are.
  double advantage(std::span<const double> first, std::span<const double> second) const override {
    return first[0] - second[0];
  }

  double reward(std::span<const double> scores) const override { return scores[0]; }

  std::string prompt_kind(const std::string&) const override { return ""; }

 private:
  double margin_;
  mutable reward_models::Scorer scorer_;  // remembers prompts
  std::vector<JudgeAxis> axes_;
};

}  // namespace

std::unique_ptr<PictureJudge> make_reward_judge(const JudgeOptions& options) {
  return std::make_unique<RewardJudge>(options);
}

}  // namespace prefusion::training

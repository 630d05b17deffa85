#include "training/picture_judge.h"

#include "core/error.h"
#include "reward_models/registry.h"
#include "shapes/caption.h"
#include "shapes/checker.h"
#include "shapes/taste.h"
#include "training/reward_judge.h"

namespace prefusion::training {
namespace {

class ShapesJudge : public PictureJudge {
 public:
  explicit ShapesJudge(double margin) : margin_(margin) {
    check_usage(margin >= 0, "--margin must not be negative, got ", margin);
  }

  const std::vector<JudgeAxis>& axes() const override {
    static const std::vector<JudgeAxis> kAxes = {{.name = "correct", .is_share = true},
                                                 {.name = "taste"},
                                                 {.name = "background"},
                                                 {.name = "edge_cleanliness"},
                                                 {.name = "stray_blobs", .higher_is_better = false}};
    return kAxes;
  }

  void check_prompt(const std::string& prompt) const override {
    check_usage(shapes::parse_caption(prompt).has_value(), "--reward shapes cannot judge the prompt '", prompt,
                "'; docs/shapes.md has the grammar");
  }

  std::vector<double> score(const at::Tensor& image, const std::string& prompt) const override {
    const shapes::Taste taste = shapes::taste(image);
    return {shapes::check(image, prompt).correct ? 1.0 : 0.0, taste.score, taste.background, taste.edge_cleanliness,
            static_cast<double>(taste.stray_blobs)};
  }

  shapes::Verdict compare(std::span<const double> first, std::span<const double> second) const override {
    return shapes::compare(judgement(first), judgement(second), margin_);
  }

  // Taste lies in 0..1, so that a difference in correctness always outweighs it.
  double advantage(std::span<const double> first, std::span<const double> second) const override {
    return reward(first) - reward(second);
  }

  double reward(std::span<const double> scores) const override { return 2 * scores[0] + scores[1]; }

  std::string prompt_kind(const std::string& prompt) const override {
    const auto parsed = shapes::parse_caption(prompt);
    if (!parsed) return "";
    return parsed->objects.size() == 1 ? "one object" : "two objects";
  }

 private:
  static shapes::Judgement judgement(std::span<const double> scores) {
    return {.correct = scores[0] != 0, .taste = scores[1]};
  }

  double margin_;
};

}  // namespace

std::unique_ptr<PictureJudge> make_shapes_judge(double taste_margin) {
  return std::make_unique<ShapesJudge>(taste_margin);
}

std::vector<std::vector<double>> PictureJudge::score_all(const std::vector<at::Tensor>& images,
                                                         const std::vector<std::string>& prompts) const {
  std::vector<std::vector<double>> scores;
  for (size_t i = 0; i < images.size(); ++i) scores.push_back(score(images[i], prompts[i]));
  return scores;
}

void check_judge(const JudgeOptions& options) {
  check_usage(!options.margin || *options.margin >= 0, "--margin must not be negative, got ",
              options.margin.value_or(0));
  for (const auto& spec : reward_models::parse_reward_specs(options.rewards, options.arguments)) {
    reward_models::check_reward_spec(spec);
  }
}

std::unique_ptr<PictureJudge> make_judge(const JudgeOptions& options) {
  check_judge(options);
  const bool is_shapes = options.rewards.size() == 1 && options.rewards.front() == "shapes";
  return is_shapes ? make_shapes_judge(options.margin.value_or(shapes::kDefaultTasteMargin))
                   : make_reward_judge(options);
}

}  // namespace prefusion::training

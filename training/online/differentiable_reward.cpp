#include "training/online/differentiable_reward.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "shapes/soft_features.h"

namespace prefusion::training {
namespace {

at::Tensor unit_rows(const at::Tensor& features) {
  return features / features.norm(2, 1, /*keepdim=*/true).clamp_min(1e-6);
}

class ShapesSoftReward : public DifferentiableReward {
 public:
  void check_prompt(const std::string& prompt) const override {
    check_usage(shapes::parse_caption(prompt).has_value(), "--reward shapes-soft cannot judge the prompt '", prompt,
                "'; docs/shapes.md has the grammar");
  }

  at::Tensor embed_texts(const std::vector<std::string>& prompts) const override {
    std::vector<at::Tensor> rows;
    for (const auto& prompt : prompts) {
      check_prompt(prompt);
      rows.push_back(shapes::wanted_features(*shapes::parse_caption(prompt)));
    }
    return unit_rows(at::stack(rows));
  }

  at::Tensor embed_images(const at::Tensor& pixel_values) const override {
    return unit_rows(shapes::soft_features(pixel_values));
  }
};

}  // namespace

std::unique_ptr<DifferentiableReward> make_differentiable_reward(const std::string& reward) {
  check_usage(reward != "shapes",
              "--reward shapes has no gradient, which this objective follows; use --reward shapes-soft");
  check_usage(reward == "shapes-soft", "--reward ", reward, " is not known; expected shapes-soft");
  return std::make_unique<ShapesSoftReward>();
}

}  // namespace prefusion::training

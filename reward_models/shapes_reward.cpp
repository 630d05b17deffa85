#include "reward_models/shapes_reward.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "shapes/caption.h"
#include "shapes/judge.h"

namespace prefusion::reward_models {
namespace {

constexpr int64_t kCaptionBytes = 128;  // more than any caption of the grammar

// The judge looks at picture and caption together, so that the features are the picture itself: a row an item of
// height, width and pixels, padded to the longest.
class ShapesTower : public PictureTower {
 public:
  const std::string& key() const override { return name_; }
  const std::string& preparation_key() const override { return name_; }

  at::Tensor prepare(const images::Picture& picture) const override { return images::to_rgb(picture); }

  at::Tensor features(const std::vector<at::Tensor>& prepared) override {
    int64_t longest = 0;
    for (const at::Tensor& picture : prepared) longest = std::max(longest, picture.numel());
    at::Tensor rows = at::zeros({static_cast<int64_t>(prepared.size()), 2 + longest}, at::kInt);
    for (size_t i = 0; i < prepared.size(); ++i) {
      at::Tensor row = rows[static_cast<int64_t>(i)];
      row[0] = prepared[i].size(0);
      row[1] = prepared[i].size(1);
      row.slice(0, 2, 2 + prepared[i].numel()).copy_(prepared[i].flatten());
    }
    return rows;
  }

 private:
  std::string name_ = "shapes";
};

class ShapesReward : public RewardModel {
 public:
  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }

  at::Tensor prompt_features(const std::vector<std::string>& prompts) override {
    at::Tensor rows = at::zeros({static_cast<int64_t>(prompts.size()), kCaptionBytes}, at::kByte);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const std::string caption = canonical(prompts[i]);
      std::copy(caption.begin(), caption.end(), rows[static_cast<int64_t>(i)].data_ptr<uint8_t>());
    }
    return rows;
  }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) override {
    at::Tensor scores = at::empty({picture_features.size(0)}, at::kFloat);
    for (int64_t i = 0; i < scores.size(0); ++i) {
      const at::Tensor row = picture_features[i];
      const int64_t height = row[0].item<int64_t>();
      const int64_t width = row[1].item<int64_t>();
      const at::Tensor picture = row.slice(0, 2, 2 + height * width * 3).to(at::kByte).view({height, width, 3});
      const shapes::Judgement judgement =
          shapes::judge(picture, reinterpret_cast<const char*>(prompt_features[i].contiguous().data_ptr<uint8_t>()));
      scores[i] = (judgement.correct ? 2.0 : 0.0) + judgement.taste;
    }
    return scores;
  }

  void check_prompt(const std::string& prompt) const override { canonical(prompt); }

 private:
  static std::string canonical(const std::string& prompt) {
    const auto parsed = shapes::parse_caption(prompt);
    check_usage(parsed.has_value(), "--reward shapes cannot judge the prompt '", prompt,
                "'; docs/shapes.md has the grammar");
    return shapes::caption_text(*parsed);
  }

  std::shared_ptr<PictureTower> tower_ = std::make_shared<ShapesTower>();
};

}  // namespace

std::unique_ptr<RewardModel> open_shapes_reward(const RewardSpec& spec, const RewardContext&) {
  RewardOptions(spec).finish();
  return std::make_unique<ShapesReward>();
}

}  // namespace prefusion::reward_models

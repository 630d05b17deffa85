#include "reward_models/aesthetic_reward.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/error.h"
#include "core/logging.h"
#include "reward_models/aesthetic_head.h"
#include "reward_models/open_clip_model.h"
#include "reward_models/siglip_vision_model.h"

namespace prefusion::reward_models {
namespace {

namespace fs = std::filesystem;

class AestheticReward : public RewardModel {
 public:
  AestheticReward(std::shared_ptr<PictureTower> tower, AestheticHead head, std::string where)
      : tower_(std::move(tower)), head_(std::move(head)), where_(std::move(where)) {}

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }
  bool uses_prompts() const override { return false; }
  at::Tensor prompt_features(const std::vector<std::string>&) override { return {}; }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor&) override {
    check_input(picture_features.size(1) == head_.affine.weight.size(0), where_, ": the head takes ",
                head_.affine.weight.size(0), " features of a picture, but the model below it gives ",
                picture_features.size(1), "; it belongs to another one");
    return head_.score(picture_features).cpu();
  }

 private:
  std::shared_ptr<PictureTower> tower_;
  AestheticHead head_;
  std::string where_;
};

// The one file in a folder that can be a head: of weights, but not named as a model's are.
fs::path find_head(const fs::path& folder) {
  constexpr std::array kModelStems = {"model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model"};
  std::set<fs::path> heads;
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    const std::string extension = file.path().extension().string();
    const std::string stem = file.path().stem().string();
    const bool is_weights = extension == ".pth" || extension == ".pt" || extension == ".safetensors";
    const bool is_model = std::any_of(kModelStems.begin(), kModelStems.end(), [&](const std::string& name) {
      return stem == name || stem.starts_with(name + "-") || stem.starts_with(name + ".");
    });
    if (is_weights && !is_model) heads.insert(file.path());
  }
  check_input(heads.size() == 1, folder.string(),
              ": expected one head (.pth, .pt or .safetensors beside the model's weights), found ", heads.size(),
              heads.size() > 1 ? "; give the path of one, and the folder as --reward-args aesthetic.clip=DIR" : "");
  return *heads.begin();
}

std::shared_ptr<PictureTower> load_tower(const fs::path& path, const OpenClipOptions& options,
                                         const RewardContext& context) {
  check_input(fs::exists(path), path.string(), ": no such file or folder");
  if (fs::is_directory(path) && is_siglip(path)) return load_siglip_tower(path, context);
  const bool is_of_open_clip = is_open_clip(path) || !options.architecture.empty();
  return (is_of_open_clip ? load_open_clip(path, options, context) : open_clip_folder(path, context)).pictures();
}

}  // namespace

std::unique_ptr<RewardModel> open_aesthetic(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions options(spec);
  const std::string clip = options.text("clip", "");
  const OpenClipOptions model{
      .kind = spec.column, .architecture = options.text("model", ""), .default_architecture = "ViT-L-14-quickgelu"};
  options.finish();
  check_input(fs::exists(spec.path), spec.path.string(), ": no such file or folder");
  const bool is_folder = fs::is_directory(spec.path);
  check_usage(is_folder || !clip.empty(), "--reward ", spec.column, "=", spec.path.string(),
              " is a head alone; name the model below it: --reward-args ", spec.column, ".clip=DIR");
  const fs::path head_path = is_folder ? find_head(spec.path) : spec.path;
  const fs::path clip_path = clip.empty() ? spec.path : fs::path(clip);
  log_info(spec.column, ": head ", head_path.string(), " on ", clip_path.string());
  return std::make_unique<AestheticReward>(load_tower(clip_path, model, context), read_aesthetic_head(head_path),
                                           head_path.string());
}

}  // namespace prefusion::reward_models

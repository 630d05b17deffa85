#include "reward_models/trained_reward.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "reward_models/clip_model.h"
#include "reward_models/reward_folder.h"

namespace prefusion::reward_models {
namespace {

class TrainedReward : public RewardModel {
 public:
  TrainedReward(const ClipParts& parts, std::shared_ptr<RewardHead> head, int64_t column, int64_t user,
                at::Device device)
      : tower_(parts.pictures()),
        prompts_(parts.prompts()),
        head_(std::move(head)),
        column_(column),
        user_(user),
        device_(device) {}

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }
  at::Tensor prompt_features(const std::vector<std::string>& prompts) override { return prompts_->encode(prompts); }
  std::string prompt_key() const override { return prompts_->key(); }
  PromptFacts prompt_facts(const std::string& prompt) const override { return prompts_->facts(prompt); }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) override {
    at::NoGradGuard no_grad;
    const at::Tensor pictures = picture_features.to(device_, at::kFloat);
    const at::Tensor users = at::full({pictures.size(0)}, user_, at::TensorOptions().dtype(at::kLong).device(device_));
    const at::Tensor scores =
        head_->forward({.pictures = pictures, .prompts = prompt_features.to(device_, at::kFloat), .users = users});
    return scores.select(1, column_).cpu();
  }

 private:
  std::shared_ptr<PictureTower> tower_;
  std::shared_ptr<ClipPromptEncoder> prompts_;
  std::shared_ptr<RewardHead> head_;
  int64_t column_;
  int64_t user_;
  at::Device device_;
};

int64_t place_of(const std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? -1 : found - names.begin();
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i == 0 ? "" : ", ") + names[i];
  return names.size() > kMost ? concat(text, ", ...") : text;
}

int64_t find_user(const RewardSpec& spec, const std::vector<std::string>& users, const std::string& name) {
  if (name.empty()) return -1;
  const int64_t place = place_of(users, name);
  if (place >= 0) return place;
  // Those whose names begin alike, if there are any.
  std::vector<std::string> alike;
  for (const std::string& user : users) {
    if (user.front() == name.front()) alike.push_back(user);
  }
  fail_usage("--reward-args ", spec.column, ".user=", name, ": not among the ", users.size(), " users of ",
             spec.path.string(), " (", listed(alike.empty() ? users : alike), ")");
}

std::unique_ptr<RewardModel> open_folder(const RewardSpec& spec, const RewardContext& context,
                                         const RewardFolder& folder, const std::filesystem::path& clip, int64_t column,
                                         int64_t user) {
  const bool is_elsewhere = !folder.clip_key.empty();
  check_input(std::filesystem::is_directory(clip), (spec.path / "reward.json").string(), ": its CLIP folder ",
              clip.string(), " is not there; name it with --reward-args ", spec.column, ".clip=DIR");
  check_input(!is_elsewhere || clip_weights_key(clip) == folder.clip_key, clip.string(), ": is not the CLIP that ",
              spec.path.string(), " was trained on: its weights differ");
  const ClipParts parts = open_clip_folder(clip, context);
  check_input(folder.head.kind == "cosine" || parts.projection_dim == folder.head.width, clip.string(),
              ": its features have ", parts.projection_dim, " numbers, the head takes ", folder.head.width);
  std::shared_ptr<RewardHead> head;
  if (folder.head.kind == "cosine") {
    head = make_cosine_head(folder.head, at::scalar_tensor(std::log(parts.logit_scale), at::kFloat).to(context.device));
  } else {
    head = load_reward_head(folder, context.device);
  }
  return std::make_unique<TrainedReward>(parts, head, column, user, context.device);
}

}  // namespace

std::unique_ptr<RewardModel> open_trained_reward(const RewardSpec& spec, const RewardContext& context) {
  const RewardFolder folder = read_reward_folder(spec.path);
  RewardOptions options(spec);
  const std::string clip = options.text("clip", folder.clip.string());
  const std::string aspect = options.text("aspect", folder.head.columns.front());
  options.finish();
  const int64_t column = place_of(folder.head.columns, aspect);
  check_usage(column >= 0, "--reward-args ", spec.column, ".aspect=", aspect, ": ", spec.path.string(), " has ",
              listed(folder.head.columns));
  return open_folder(spec, context, folder, clip, column, -1);
}

std::unique_ptr<RewardModel> open_pal(const RewardSpec& spec, const RewardContext& context) {
  const RewardFolder folder = read_reward_folder(spec.path);
  check_input(folder.head.kind == "pal", (spec.path / "reward.json").string(), ": the head is '", folder.head.kind,
              "', not pal; score it as trained=", spec.path.string());
  RewardOptions options(spec);
  const std::string clip = options.text("clip", folder.clip.string());
  const std::string user = options.text("user", "");
  options.finish();
  return open_folder(spec, context, folder, clip, 0, find_user(spec, folder.head.users, user));
}

}  // namespace prefusion::reward_models

#include "reward_models/reward_folder.h"

#include <ATen/ATen.h>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "nn/layers.h"

namespace prefusion::reward_models {

RewardFolder read_reward_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "reward.json";
  check_input(std::filesystem::exists(path), folder.string(),
              ": has no reward.json; expected a folder that prefusion train-reward wrote");
  RewardFolder result{.folder = folder, .json = read_json(path)};
  const std::string where = path.string();
  check_input(result.json.is_object() && result.json.value("format", Json()) == 1, where, ": unknown format");
  const Json clip = result.json.value("clip", Json());
  const Json key = result.json.value("clip_key", Json(""));
  check_input(clip.is_string() && key.is_string(), where, ": 'clip' or 'clip_key' is no text");
  result.head = parse_reward_head(result.json.value("head", Json()), where);
  result.clip = (folder / clip.get<std::string>()).lexically_normal();  // an absolute path stands by itself
  result.clip_key = key.get<std::string>();
  return result;
}

std::shared_ptr<RewardHead> load_reward_head(const RewardFolder& folder, at::Device device) {
  const std::filesystem::path path = folder.folder / "head.safetensors";
  std::shared_ptr<RewardHead> head = make_reward_head(folder.head, 0);
  nn::load_module(*head, read_safetensors(path), at::kFloat, device, path.string());
  head->eval();
  return head;
}

std::string clip_weights_key(const std::filesystem::path& clip) {
  constexpr int64_t kNumbers = 64;
  ContentHasher hash;
  for (const auto& [name, tensor] : read_weights(clip, "model")) {
    const at::Tensor numbers = tensor.flatten().slice(0, 0, kNumbers).contiguous();
    hash.add(name).add(shape_text(tensor.sizes()));
    hash.add(std::string_view(static_cast<const char*>(numbers.data_ptr()), numbers.nbytes()));
  }
  return hash.finish().hex();
}

}  // namespace prefusion::reward_models

#include "training/reward/reward_output.h"

#include <ATen/ATen.h>

#include <string>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "nn/layers.h"
#include "reward_models/reward_folder.h"
#include "training/reward/reward_report.h"

namespace prefusion::training {
namespace {

// What the start's file holds, with the network's values; new networks in fp32.
TensorMap clip_weights(const RewardStart& start, const RewardNetwork& network) {
  TensorMap weights;
  if (start.has_weights) weights = read_weights(start.clip, "model");
  for (const NamedTensor& tensor : network.clip().tensors()) {
    const auto stored = weights.find(tensor.name);
    const at::Tensor value = tensor.tensor.detach().cpu();
    // The stored shape counts: logit_scale may be [1].
    weights[tensor.name] =
        stored == weights.end() ? value : value.to(stored->second.scalar_type()).view(stored->second.sizes());
  }
  return weights;
}

// README.md.
std::string reward_card(const TrainRewardOptions& options, const Json& reward, const Json& report) {
  const std::string kind = options.head == "pal" ? "pal" : options.head == "cosine" ? "pickscore" : "trained";
  const std::string folder = std::filesystem::weakly_canonical(options.output).filename().string();
  return concat(
      "# ", folder, "\n\nA reward model for text-to-image pictures, fitted with `prefusion train-reward`: head `",
      options.head, "`, loss `", options.loss, "`, trained weights: ", options.train,
      ".\n\n## How good it is\n\nOn prompts that were neither trained on nor used to choose anything (95 % intervals "
      "over prompts):\n\n```\n",
      reward_report_text(report), "```\n\n## Data\n\n```json\n", reward.at("data").dump(2),
      "\n```\n\n## Use\n\n    prefusion score --reward ", kind, '=', folder, " --image PICTURE --prompt TEXT\n\n",
      options.head == "cosine" ? "The folder also loads with transformers' `CLIPModel.from_pretrained`; the "
                                 "score is `exp(logit_scale) * cosine`.\n\n"
                               : "",
      "`run.toml` repeats the run, `report.json` and `metrics.jsonl` have its numbers.\n");
}

}  // namespace

Json write_reward_weights(const TrainRewardOptions& options, const RewardStart& start, RewardNetwork& network) {
  const bool writes_clip = network.trains_towers() || options.head == "cosine";
  Json json;
  json["head"] = to_json(network.head().config());
  json["loss"] = options.loss;
  if (network.log_tie().defined()) json["log_tie"] = network.log_tie().item<double>();
  if (options.head != "cosine") {
    write_safetensors(options.output / "head.safetensors", nn::tensor_map(network.head()), {{"format", "pt"}});
  }
  if (writes_clip) {
    reward_models::copy_clip_files(start.clip, options.output);
    write_safetensors(options.output / "model.safetensors", clip_weights(start, network), {{"format", "pt"}});
    json["clip"] = ".";
  } else {
    json["clip"] = std::filesystem::canonical(start.clip).string();
    json["clip_key"] = reward_models::clip_weights_key(start.clip);
  }
  return json;
}

void write_reward_files(const TrainRewardOptions& options, const Json& reward, const Json& report) {
  write_file(options.output / "report.json", report.dump(2) + "\n");
  write_file(options.output / "README.md", reward_card(options, reward, report));
  write_file(options.output / "reward.json", reward.dump(2) + "\n");
}

}  // namespace prefusion::training

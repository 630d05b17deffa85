#include "reward_models/image_reward_files.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/json_config.h"
#include "core/torch_file.h"
#include "core/weights.h"
#include "nn/layers.h"

namespace prefusion::reward_models {
namespace {

namespace fs = std::filesystem;

const std::string kBlip = "blip.";
const std::string kHead = "mlp.layers.";
const std::vector<int> kHeadLayers = {0, 2, 4, 6, 7};  // the numbers between are dropout

fs::path weights_file(const fs::path& path) {
  if (fs::is_regular_file(path)) return path;
  check_input(fs::is_directory(path), path.string(), ": no such file or folder; expected the weights of ImageReward");
  for (const char* name : {"ImageReward.safetensors", "model.safetensors", "ImageReward.pt"}) {
    if (fs::exists(path / name)) return path / name;
  }
  fail_input(path.string(),
             ": holds no weights; expected ImageReward.pt, ImageReward.safetensors or model.safetensors");
}

fs::path checked_tokenizer_folder(const fs::path& beside, const fs::path& given) {
  const fs::path folder = given.empty() ? beside : given;
  check_input(fs::exists(folder / "vocab.txt") || fs::exists(folder / "tokenizer.json"), folder.string(),
              ": holds no BERT tokenizer, which ImageReward's own files lack; add vocab.txt (or tokenizer.json) of "
              "bert-base-uncased to the folder, or name another one with --reward-args imagereward.tokenizer=DIR");
  return folder;
}

// Parts of the checkpoint that scores do not depend on: projections of BLIP's pretraining and positions 0, 1, 2, ...
bool is_unused(const std::string& name) {
  return name.starts_with("blip.vision_proj.") || name.starts_with("blip.text_proj.") ||
         name == "blip.text_encoder.embeddings.position_ids";
}

}  // namespace

TensorMap ImageRewardFiles::part(const std::string& prefix) const {
  TensorMap part;
  for (const auto& [name, tensor] : weights) {
    if (name.starts_with(prefix)) part.emplace(name.substr(prefix.size()), tensor);
  }
  return part;
}

AffineHead ImageRewardFiles::load(torch::nn::Module& blip, at::ScalarType dtype, at::Device device) const {
  const std::vector<NamedTensor> parameters = nn::named_tensors(blip);
  std::vector<NamedTensor> expected;
  for (const auto& [name, tensor] : parameters) expected.push_back({kBlip + name, tensor});
  for (const int layer : kHeadLayers) {
    for (const char* kind : {".weight", ".bias"}) {
      const std::string name = kHead + std::to_string(layer) + kind;
      const auto found = weights.find(name);  // layers may have any width; collapsing them checks that they fit
      expected.push_back({name, found == weights.end() ? at::empty({0}) : found->second});
    }
  }
  check_weights(expected, weights, where);
  nn::load_module(blip, part(kBlip), dtype, device, where);
  return collapse_linear_layers(weights, kHead, kHeadLayers, where);
}

ImageRewardFiles read_image_reward_files(const fs::path& path, const fs::path& tokenizer_folder) {
  const fs::path file = weights_file(path);
  const fs::path folder = file.parent_path();
  const fs::path config_path = folder / "med_config.json";
  check_input(fs::exists(config_path), folder.string(),
              ": holds no med_config.json, the config of the text encoder, which is published beside ImageReward.pt");
  ImageRewardFiles files;
  files.where = file.string();
  files.text = text::parse_bert_config(read_json(config_path), config_path.string());
  files.tokenizer_folder = checked_tokenizer_folder(folder, tokenizer_folder);
  files.weights = model_weights(read_tensors(file));
  std::erase_if(files.weights, [](const auto& entry) { return is_unused(entry.first); });
  return files;
}

}  // namespace prefusion::reward_models

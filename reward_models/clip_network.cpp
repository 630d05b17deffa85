#include "reward_models/clip_network.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/safetensors.h"

namespace prefusion::reward_models {
namespace fs = std::filesystem;
namespace {

// Transformers' CLIPConfig.logit_scale_init_value.
constexpr double kDefaultLogitScale = 2.6592;

// The networks with allocated but unset weights.
ClipNetwork allocate(const fs::path& folder, const Json& config) {
  const std::string where = (folder / "config.json").string();
  const text::ClipTextConfig text = text::parse_clip_text_config(config, where);
  check_input(text.has_projection, where, ": is no whole CLIPModel, a text model without a projection");
  ClipNetwork network;
  network.vision = std::make_shared<ClipVisionModel>(parse_clip_vision_config(config, where), where);
  network.text = std::make_shared<text::ClipTextModel>(text, where);
  network.tokenizer = clip_folder_tokenizer(folder, text.max_position_embeddings);
  network.preparation = read_picture_preparation(folder);
  return network;
}

Json read_config(const fs::path& folder) {
  check_input(fs::is_directory(folder), folder.string(), ": no such folder");
  return read_json(folder / "config.json");
}

}  // namespace

std::vector<NamedTensor> ClipNetwork::tensors() const {
  std::vector<NamedTensor> all = nn::named_tensors(*vision);
  for (const NamedTensor& tensor : nn::named_tensors(*text)) all.push_back(tensor);
  all.push_back({"logit_scale", log_scale});
  return all;
}

ClipNetwork load_clip_network(const fs::path& folder, at::ScalarType dtype, at::Device device) {
  ClipNetwork network = allocate(folder, read_config(folder));
  const TensorMap weights = read_weights(folder, "model");
  nn::load_module(*network.vision, clip_picture_weights(weights), dtype, device, folder.string());
  nn::load_module(*network.text, clip_text_weights(weights), dtype, device, folder.string());
  network.log_scale = at::scalar_tensor(stored_logit_scale(weights, folder.string()), at::kFloat).to(device);
  return network;
}

ClipNetwork make_clip_network(const fs::path& folder, uint64_t seed, at::Device device) {
  const Json config = read_config(folder);
  ClipNetwork network = allocate(folder, config);
  at::Generator generator = make_torch_generator(seed);
  nn::init_weights(*network.vision, generator);
  nn::init_weights(*network.text, generator);
  {
    at::NoGradGuard no_grad;  // the only parameter that belongs to no layer
    network.vision->named_parameters()["vision_model.embeddings.class_embedding"].normal_(0.0, 0.02, generator);
  }
  network.vision->to(device);
  network.text->to(device);
  const double scale = config.value("logit_scale_init_value", kDefaultLogitScale);
  network.log_scale = at::scalar_tensor(scale, at::kFloat).to(device);
  return network;
}

void copy_clip_files(const fs::path& from, const fs::path& to) {
  // Training does not change these; what else may lie in a folder (checkpoints, other formats of the weights) stays.
  static constexpr const char* kNames[] = {"config.json",    "preprocessor_config.json", "processor_config.json",
                                           "tokenizer.json", "tokenizer_config.json",    "vocab.json",
                                           "merges.txt",     "special_tokens_map.json",  "added_tokens.json"};
  make_folder(to);
  for (const char* name : kNames) {
    if (fs::exists(from / name)) write_file(to / name, read_file(from / name));
  }
}

}  // namespace prefusion::reward_models

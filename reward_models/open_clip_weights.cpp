#include "reward_models/open_clip_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

struct Name {
  std::string_view open_clip;
  std::string_view transformers;
  bool is_transposed = false;
};

constexpr std::array kNames = {
    Name{"visual.class_embedding", "vision_model.embeddings.class_embedding"},
    Name{"visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"},
    Name{"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"},
    Name{"visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"},
    Name{"visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"},
    Name{"visual.ln_post.weight", "vision_model.post_layernorm.weight"},
    Name{"visual.ln_post.bias", "vision_model.post_layernorm.bias"},
    Name{"visual.proj", "visual_projection.weight", /*is_transposed=*/true},
    Name{"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
    Name{"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    Name{"ln_final.weight", "text_model.final_layer_norm.weight"},
    Name{"ln_final.bias", "text_model.final_layer_norm.bias"},
    Name{"text_projection", "text_projection.weight", /*is_transposed=*/true},
};

// What a name begins with.
constexpr std::array kLayers = {
    Name{"visual.transformer.resblocks.", "vision_model.encoder.layers."},
    Name{"transformer.resblocks.", "text_model.encoder.layers."},
};

// What follows the number of the layer.
constexpr std::array kLayerNames = {
    Name{"ln_1.", "layer_norm1."},
    Name{"ln_2.", "layer_norm2."},
    Name{"mlp.c_fc.", "mlp.fc1."},
    Name{"mlp.c_proj.", "mlp.fc2."},
    Name{"attn.out_proj.", "self_attn.out_proj."},
};

// Facts and masks that OpenAI's archives and old files of open_clip keep among the weights.
const std::set<std::string> kNoWeights = {"input_resolution",
                                          "context_length",
                                          "vocab_size",
                                          "attn_mask",
                                          "visual.input_resolution",
                                          "visual.output_dim",
                                          "logit_bias",
                                          "text_model.embeddings.position_ids",
                                          "vision_model.embeddings.position_ids"};

// Adds the weights of one layer; `rest` is the name behind "resblocks.".
void add_layer_weight(TensorMap& named, std::string_view prefix, std::string_view rest, const at::Tensor& tensor,
                      const std::string& where) {
  const size_t dot = rest.find('.');
  const std::string layer = std::string(prefix) + std::string(rest.substr(0, dot)) + ".";
  const std::string name(dot == std::string_view::npos ? "" : rest.substr(dot + 1));
  if (name == "attn.in_proj_weight" || name == "attn.in_proj_bias") {
    check_input(tensor.dim() >= 1 && tensor.size(0) % 3 == 0, where, ": '", rest, "' of shape ",
                shape_text(tensor.sizes()), " does not split into queries, keys and values");
    const std::vector<at::Tensor> parts = tensor.chunk(3);
    const std::string kind = name == "attn.in_proj_weight" ? ".weight" : ".bias";
    for (size_t i = 0; i < parts.size(); ++i) {
      named.emplace(layer + "self_attn." + "qkv"[i] + "_proj" + kind, parts[i]);
    }
    return;
  }
  for (const Name& entry : kLayerNames) {
    if (!name.starts_with(entry.open_clip)) continue;
    named.emplace(layer + std::string(entry.transformers) + name.substr(entry.open_clip.size()), tensor);
    return;
  }
  named.emplace(layer + name, tensor);  // strict loading will name it
}

void add_weight(TensorMap& named, std::string name, const at::Tensor& tensor, const std::string& where) {
  // Towers of a CustomTextCLIP keep the text half apart.
  if (name.starts_with("text.")) name = name.substr(5);
  for (const Name& entry : kLayers) {
    if (!name.starts_with(entry.open_clip)) continue;
    add_layer_weight(named, entry.transformers, std::string_view(name).substr(entry.open_clip.size()), tensor, where);
    return;
  }
  for (const Name& entry : kNames) {
    if (name != entry.open_clip) continue;
    check_input(!entry.is_transposed || tensor.dim() == 2, where, ": '", name, "' of shape ",
                shape_text(tensor.sizes()), " is no matrix");
    named.emplace(entry.transformers, entry.is_transposed ? tensor.t() : tensor);
    return;
  }
  named.emplace(std::move(name), tensor);
}

}  // namespace

ClipWeights clip_weights(const TensorMap& weights, const std::string& where) {
  TensorMap named;
  for (const auto& [name, tensor] : weights) {
    if (!kNoWeights.contains(name)) add_weight(named, name, tensor, where);
  }
  ClipWeights halves;
  for (const auto& [name, tensor] : named) {
    const auto begins = [&key = name](const char* prefix) { return key.starts_with(prefix); };
    // An open_clip name nobody knows stays with its tower, which refuses it.
    const bool is_picture = begins("vision_model.") || begins("visual");
    const bool is_prompt = begins("text_model.") || begins("text_projection");
    (is_picture ? halves.pictures : is_prompt ? halves.prompts : halves.rest).emplace(name, tensor);
  }
  return halves;
}

std::filesystem::path find_open_clip_weights(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  // In the order in which open_clip looks for them.
  for (const char* name :
       {"open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
        "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"}) {
    if (fs::exists(folder / name)) return folder / name;
  }
  std::set<fs::path> others;
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    const std::string extension = file.path().extension().string();
    if (extension == ".safetensors" || extension == ".pt" || extension == ".pth" || extension == ".bin") {
      others.insert(file.path());
    }
  }
  check_input(!others.empty(), folder.string(),
              ": no weights found; looked for open_clip_model.safetensors, "
              "open_clip_pytorch_model.bin and other .safetensors, .bin, .pt and .pth files");
  check_input(others.size() == 1, folder.string(), ": holds several files of weights (",
              others.begin()->filename().string(), ", ", others.rbegin()->filename().string(),
              "); give the path of one");
  return *others.begin();
}

}  // namespace prefusion::reward_models

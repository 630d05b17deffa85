#include "tools/convert_check.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/weights.h"
#include "nn/layers.h"
#include "text/clip_text_model.h"
#include "unet/denoiser.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::tools {
namespace {

// The module of a network, or null for a class prefusion does not have.
std::shared_ptr<torch::nn::Module> make_network(const ModelPart& part, const std::string& where) {
  const std::string config = part.config.dump();
  switch (part.layout->kind) {
    case layouts::NetworkKind::kUnet:
    case layouts::NetworkKind::kSd3Transformer: return unet::make_denoiser(config, where);
    case layouts::NetworkKind::kAutoencoder: return vae::make_autoencoder(config, where);
    case layouts::NetworkKind::kClip:
    case layouts::NetworkKind::kOpenClip: return text::make_clip_text_model(config, where);
    case layouts::NetworkKind::kFluxTransformer:
    case layouts::NetworkKind::kT5: return nullptr;
  }
  return nullptr;
}

// What most blocks of a network have, all have: for networks that are not compared with a module.
void check_blocks_alike(const TensorSources& weights, const std::string& blocks, const std::string& where) {
  const int64_t count = layouts::count_numbered(weights, blocks);
  std::map<std::string, int64_t> occurrences;
  for (const auto& [name, source] : weights) {
    if (!name.starts_with(blocks)) continue;
    ++occurrences[name.substr(name.find('.', blocks.size()))];
  }
  for (const auto& [suffix, found] : occurrences) {
    if (2 * found <= count) continue;  // T5's first block has the positions of all
    for (int64_t i = 0; i < count; ++i) {
      const std::string name = concat(blocks, i, suffix);
      check_input(weights.contains(name), where, ": weights are incomplete: '", name, "' is missing, which ", found,
                  " of ", count, " blocks have");
    }
  }
}

}  // namespace

void check_part(const ModelPart& part, const std::string& where) {
  const std::string name =
      concat(where, " (", part.folder, part.is_config_inferred ? ", config read off its shapes)" : ")");
  const auto network = make_network(part, name);
  if (!network) {
    for (const char* blocks : {"transformer_blocks.", "single_transformer_blocks.", "encoder.block."}) {
      check_blocks_alike(part.weights, blocks, name);
    }
    return;
  }
  TensorMap found;  // shapes alone
  for (const auto& [key, source] : part.weights) {
    if (key == "text_model.embeddings.position_ids") continue;
    found.emplace(key, at::empty(source.shape, at::TensorOptions().dtype(source.dtype).device(at::kMeta)));
  }
  check_weights(nn::named_tensors(*network), found, name);
}

void add_identity_projection(layouts::Family family, ModelPart& part) {
  constexpr const char* kName = "text_projection.weight";
  if (family != layouts::Family::kSd3 || part.folder != "text_encoder" || part.weights.contains(kName)) return;
  const auto embedding = part.weights.find("text_model.embeddings.token_embedding.weight");
  if (embedding == part.weights.end() || embedding->second.shape.size() != 2) return;
  const int64_t width = embedding->second.shape[1];
  const at::ScalarType dtype = embedding->second.dtype;
  part.weights.emplace(kName, TensorSource{dtype, {width, width}, [width, dtype] {
                                             return at::eye(width, at::TensorOptions().dtype(at::kFloat)).to(dtype);
                                           }});
}

}  // namespace prefusion::tools

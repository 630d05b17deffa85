#include "tools/convert_check.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/weights.h"
#include "nn/layers.h"
#include "text/clip_text_model.h"
#include "text/t5_encoder_model.h"
#include "unet/denoiser.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::tools {
namespace {

// The network, with allocated but unset weights.
std::shared_ptr<torch::nn::Module> make_network(const ModelPart& part, const std::string& where) {
  const std::string config = part.config.dump();
  switch (part.layout->kind) {
    case layouts::NetworkKind::kUnet:
    case layouts::NetworkKind::kSd3Transformer:
    case layouts::NetworkKind::kFluxTransformer: return unet::make_denoiser(config, where);
    case layouts::NetworkKind::kAutoencoder: return vae::make_autoencoder(config, where);
    case layouts::NetworkKind::kClip:
    case layouts::NetworkKind::kOpenClip: return text::make_clip_text_model(config, where);
    case layouts::NetworkKind::kT5: return text::make_t5_encoder_model(config, where);
  }
  fail_run("no network for this part");
}

}  // namespace

void check_part(const ModelPart& part, const std::string& where) {
  const std::string name =
      concat(where, " (", part.folder, part.is_config_inferred ? ", config read off its shapes)" : ")");
  const auto network = make_network(part, name);
  TensorMap found;  // shapes alone
  for (const auto& [key, source] : part.weights) {
    if (key == "text_model.embeddings.position_ids") continue;
    // Both names of T5's embeddings mean one tensor.
    const bool is_second_name = part.layout->kind == layouts::NetworkKind::kT5 && key == "encoder.embed_tokens.weight";
    if (is_second_name && part.weights.contains("shared.weight")) continue;
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

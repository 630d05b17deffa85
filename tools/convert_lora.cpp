#include "tools/convert_lora.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "nn/lora_gate.h"
#include "nn/lora_metadata.h"
#include "nn/lora_original.h"
#include "tools/generate_images.h"

namespace prefusion::tools {
namespace {

using nn::LoraComponent;
using nn::LoraFileModule;
constexpr std::string_view kWeight = ".weight";

bool is_original_block(const std::string& name) {
  for (const char* prefix : {"input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out."}) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

// Diffusers' path of a layer. Layers of the original UNet are renumbered.
std::string public_name(const LoraFileModule& module, const layouts::KeyMap& unet) {
  std::string name = nn::dotted_name(module.name);
  if (!nn::is_denoiser(module.component)) {
    return name.starts_with("encoder.layers.") ? "text_model." + name : name;
  }
  if (!is_original_block(name)) return name;
  // The table has the upsampler of a block with attention; without, the same layer is counted one lower.
  constexpr std::string_view kPlainUpsampler = ".1.conv";
  if (name.ends_with(kPlainUpsampler))
    name.replace(name.size() - kPlainUpsampler.size(), kPlainUpsampler.size(), ".2.conv");
  const auto match = unet.from_original(name + std::string(kWeight));
  if (!match) return nn::dotted_name(module.name);
  return match->diffusers.front().substr(0, match->diffusers.front().size() - kWeight.size());
}

// Every alpha from the file's description where it has no tensor for it, and the denoiser under its right name.
void resolve(nn::LoraFile& file) {
  std::map<LoraComponent, nn::LoraDescription> descriptions;
  for (LoraFileModule& module : file.modules) {
    if (module.alpha) continue;
    if (!descriptions.contains(module.component)) {
      descriptions.emplace(module.component, nn::description_of(file, module.component));
    }
    module.alpha = descriptions.at(module.component).alpha(module.name, module.rank());
  }
  const bool is_transformer = nn::is_transformer_lora(file.modules);
  for (LoraFileModule& module : file.modules) {
    if (!nn::is_denoiser(module.component)) continue;
    module.component = is_transformer ? LoraComponent::kTransformer : LoraComponent::kUnet;
  }
}

double factor_of(const LoraFileModule& module, double scale) {
  return scale * *module.alpha / static_cast<double>(module.rank());
}

at::Tensor flattened(const at::Tensor& tensor) {
  return tensor.to(at::kFloat).reshape({tensor.size(0), -1});
}

struct Share {
  const LoraFileModule* module;
  double scale;
};

// Ranks one after the other; `target` alpha makes the common factor.
LoraFileModule stacked(const std::vector<Share>& shares) {
  LoraFileModule sum = *shares.front().module;
  const double factor = factor_of(*shares.front().module, shares.front().scale);
  if (shares.size() == 1) {
    sum.alpha = *sum.alpha * shares.front().scale;
    return sum;
  }
  std::vector<at::Tensor> A, B;
  for (const Share& share : shares) {
    const LoraFileModule& module = *share.module;
    const double own = factor_of(module, share.scale);
    check_input(module.A.sizes().slice(1) == sum.A.sizes().slice(1) && module.B.size(0) == sum.B.size(0), "layer '",
                sum.name, "' has shapes A ", shape_text(sum.A.sizes()), ", B ", shape_text(sum.B.sizes()),
                " in one LoRA and A ", shape_text(module.A.sizes()), ", B ", shape_text(module.B.sizes()),
                " in another: they are of different models");
    A.push_back(module.A);
    // A factor of one is exact in any dtype. Where the first is zero, so are all: its factor is taken for one.
    const double relative = factor == 0 ? own : own / factor;
    B.push_back(relative == 1.0 ? module.B : (module.B.to(at::kFloat) * relative).to(module.B.scalar_type()));
  }
  if (factor == 0) B.front() = at::zeros_like(B.front());
  const auto common = [](std::vector<at::Tensor>& tensors, int64_t dim) {
    at::ScalarType dtype = tensors.front().scalar_type();
    for (const at::Tensor& tensor : tensors) dtype = at::promote_types(dtype, tensor.scalar_type());
    for (at::Tensor& tensor : tensors) tensor = tensor.to(dtype);
    return at::cat(tensors, dim);
  };
  sum.A = common(A, 0);
  sum.B = common(B, 1);
  sum.alpha = (factor == 0 ? 1.0 : factor) * static_cast<double>(sum.rank());
  return sum;
}

// The product's singular values from those of a small matrix: B A = Q_B (R_B R_A^T) Q_A^T.
LoraFileModule reduced(LoraFileModule module, int64_t rank) {
  const auto dtype = module.A.scalar_type();
  const int64_t kept = std::min({rank, module.rank(), module.B.size(0), flattened(module.A).size(1)});
  const auto [q_b, r_b] = at::linalg_qr(flattened(module.B).to(at::kDouble));
  const auto [q_a, r_a] = at::linalg_qr(flattened(module.A).to(at::kDouble).t());
  const auto [u, s, v] = at::linalg_svd(at::mm(r_b, r_a.t()) * factor_of(module, 1.0), /*full_matrices=*/false);
  const at::Tensor root = s.narrow(0, 0, kept).sqrt();
  std::vector<int64_t> a_shape = module.A.sizes().vec();
  std::vector<int64_t> b_shape = module.B.sizes().vec();
  a_shape[0] = b_shape[1] = kept;
  module.B = (at::mm(q_b, u.narrow(1, 0, kept)) * root).reshape(b_shape).to(dtype);
  module.A = (root.unsqueeze(1) * at::mm(v.narrow(0, 0, kept), q_a.t())).reshape(a_shape).to(dtype).contiguous();
  module.alpha = static_cast<double>(kept);
  return module;
}

}  // namespace

layouts::UNetShape original_unet_shape(const Json& denoiser_config, bool is_xl) {
  if (!denoiser_config.is_object() || !denoiser_config.contains("up_block_types")) {
    return is_xl ? layouts::UNetShape{{2, 2, 2}, {true, true, false}}
                 : layouts::UNetShape{{2, 2, 2, 2}, {false, true, true, true}};
  }
  ConfigReader reader(denoiser_config, "config of the UNet");
  const auto types = reader.get<std::vector<std::string>>("up_block_types", {});
  layouts::UNetShape shape;
  shape.layers = reader.int_or_list("layers_per_block", types.size(), 2);
  for (const auto& type : types) shape.up_attention.push_back(type.find("Attn") != std::string::npos);
  return shape;
}

bool is_xl_lora(const std::vector<LoraFileModule>& modules) {
  return std::any_of(modules.begin(), modules.end(), [](const LoraFileModule& module) {
    const std::string name = nn::dotted_name(module.name);
    const bool is_unet = nn::is_denoiser(module.component) && !nn::is_transformer_lora({module});
    return module.component == LoraComponent::kTextEncoder2 ||
           (is_unet && name.find(".transformer_blocks.1.") != std::string::npos) || name.starts_with("label_emb.") ||
           name.starts_with("add_embedding.");
  });
}

ScaledLora read_scaled_lora(const std::string& argument, const Json& denoiser_config) {
  const AdapterArgument parsed = parse_lora_argument(argument);
  const std::filesystem::path path = nn::find_lora_file(parsed.path);
  check_input(!nn::is_lora_gate(SafetensorsFile::open(path).metadata()), path.string(),
              ": is a gated LoRA, which depends on the timestep and has no plain equivalent");
  ScaledLora lora{nn::read_lora_file(path), parsed.scale};
  check_input(!lora.file.modules.empty(), path.string(), ": holds no LoRA; the first of its ",
              lora.file.other_keys.size(), " keys is '",
              lora.file.other_keys.empty() ? "" : lora.file.other_keys.front(), "'");
  layouts::UNetShape shape = original_unet_shape(denoiser_config, /*is_xl=*/false);
  shape.up_attention.assign(shape.up_attention.size(), true);
  const layouts::KeyMap unet = layouts::unet_layout(shape);
  for (LoraFileModule& module : lora.file.modules) module.name = public_name(module, unet);
  resolve(lora.file);
  return lora;
}

std::vector<LoraFileModule> combine_loras(const std::vector<ScaledLora>& loras, int64_t rank) {
  std::map<std::pair<LoraComponent, std::string>, std::vector<Share>> shares;
  for (const ScaledLora& lora : loras) {
    for (const LoraFileModule& module : lora.file.modules) {
      shares[{module.component, module.name}].push_back({&module, lora.scale});
    }
  }
  std::vector<LoraFileModule> combined;
  for (const auto& [layer, layer_shares] : shares) {
    LoraFileModule sum = stacked(layer_shares);
    combined.push_back(rank > 0 ? reduced(std::move(sum), rank) : std::move(sum));
  }
  return combined;
}

}  // namespace prefusion::tools

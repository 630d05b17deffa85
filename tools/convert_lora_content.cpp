#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "nn/lora_metadata.h"
#include "nn/lora_original.h"
#include "tools/convert_lora.h"

namespace prefusion::tools {
namespace {

using nn::LoraComponent;
using nn::LoraFileModule;

constexpr std::array kComponents = {LoraComponent::kUnet, LoraComponent::kTransformer, LoraComponent::kTextEncoder,
                                    LoraComponent::kTextEncoder2};

// Layers of the UNet as the original code numbers them.
std::vector<LoraFileModule> renumbered(std::vector<LoraFileModule> modules, const Json& denoiser_config) {
  constexpr std::string_view kWeight = ".weight";
  const layouts::KeyMap unet = layouts::unet_layout(original_unet_shape(denoiser_config, is_xl_lora(modules)));
  for (LoraFileModule& module : modules) {
    if (module.component != LoraComponent::kUnet) continue;
    const auto match = unet.from_diffusers(module.name + std::string(kWeight));
    check_input(
        match.has_value(), "layer '", module.name,
        "' has no name in the original UNet; give the model's folder as --model-config, or --kohya-blocks diffusers");
    module.name = match->original.substr(0, match->original.size() - kWeight.size());
  }
  return modules;
}

std::string flat_name(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

bool has_component(const std::vector<LoraFileModule>& modules, LoraComponent component) {
  return std::any_of(modules.begin(), modules.end(),
                     [component](const LoraFileModule& module) { return module.component == component; });
}

bool is_flux(const LoraOutput& output) {
  return output.denoiser_config.is_object() &&
         output.denoiser_config.value("_class_name", "") == "FluxTransformer2DModel";
}

Json description_of(const std::vector<LoraFileModule>& modules, LoraComponent component, const std::string& name) {
  std::vector<nn::DescribedLayer> layers;
  std::vector<std::string> targets;
  for (const LoraFileModule& module : modules) {
    if (module.component != component) continue;
    layers.push_back({module.name, module.rank(), *module.alpha});
    targets.push_back(module.name);
  }
  return nn::describe_layers(layers, std::move(targets), name);
}

void add(LoraContent& content, const LoraFileModule& module, const std::string& name, const char* A, const char* B) {
  content.tensors.emplace(name + A, module.A);
  content.tensors.emplace(name + B, module.B);
}

LoraContent diffusers_content(const std::vector<LoraFileModule>& modules) {
  LoraContent content;
  Json description = Json::object();
  for (const LoraComponent component : kComponents) {
    if (!has_component(modules, component)) continue;
    const std::string name = nn::component_name(component);
    for (const LoraFileModule& module : modules) {
      if (module.component == component) {
        add(content, module, name + "." + module.name, ".lora_A.weight", ".lora_B.weight");
      }
    }
    description.update(description_of(modules, component, name));
  }
  content.metadata = {{"format", "pt"}, {nn::kLoraMetadataKey, description.dump(2, ' ', /*ensure_ascii=*/true)}};
  return content;
}

LoraContent peft_content(const std::vector<LoraFileModule>& modules) {
  LoraContent content;
  for (const LoraFileModule& module : modules) {
    check_usage(nn::is_denoiser(module.component),
                "--lora-format peft: a PEFT file belongs to one network, and "
                "this LoRA has layers of ",
                nn::component_name(module.component), " too; use diffusers or kohya");
    add(content, module, "base_model.model." + module.name, ".lora_A.weight", ".lora_B.weight");
  }
  content.metadata = {{"format", "pt"}};
  content.adapter_config = description_of(modules, modules.front().component, "");
  return content;
}

void add_alpha(LoraContent& content, const LoraFileModule& module, const std::string& name) {
  content.tensors.emplace(name + ".alpha", at::scalar_tensor(*module.alpha, at::kFloat));
}

LoraContent kohya_content(const std::vector<LoraFileModule>& modules, const LoraOutput& output) {
  const bool is_transformer = nn::is_transformer_lora(modules);
  const bool is_sgm = output.kohya_blocks == "sgm" || (output.kohya_blocks == "auto" && is_xl_lora(modules));
  const bool has_two = has_component(modules, LoraComponent::kTextEncoder2) || is_transformer || is_xl_lora(modules);
  std::vector<LoraFileModule> named = modules;
  if (is_transformer) {
    named = nn::original_modules(modules, is_flux(output), "--lora-format kohya");
  } else if (is_sgm) {
    named = renumbered(modules, output.denoiser_config);
  }
  LoraContent content;
  for (const LoraFileModule& module : named) {
    std::string prefix = "lora_unet_";
    if (module.component == LoraComponent::kTextEncoder) prefix = has_two ? "lora_te1_" : "lora_te_";
    if (module.component == LoraComponent::kTextEncoder2) prefix = "lora_te2_";
    const std::string name = prefix + flat_name(module.name);
    add(content, module, name, ".lora_down.weight", ".lora_up.weight");
    add_alpha(content, module, name);
  }
  content.metadata = {{"format", "pt"},
                      {"ss_network_module", is_transformer ? "networks.lora_flux" : "networks.lora"},
                      {"ss_network_dim", std::to_string(named.front().rank())},
                      {"ss_network_alpha", concat(*named.front().alpha)}};
  return content;
}

LoraContent comfyui_content(const std::vector<LoraFileModule>& modules, const LoraOutput& output) {
  const std::vector<LoraFileModule> named =
      nn::is_transformer_lora(modules) ? nn::original_modules(modules, is_flux(output), "--lora-format comfyui")
                                       : renumbered(modules, output.denoiser_config);
  LoraContent content;
  for (const LoraFileModule& module : named) {
    std::string prefix = "diffusion_model.";
    if (module.component == LoraComponent::kTextEncoder) prefix = "text_encoders.clip_l.transformer.";
    if (module.component == LoraComponent::kTextEncoder2) prefix = "text_encoders.clip_g.transformer.";
    add(content, module, prefix + module.name, ".lora_down.weight", ".lora_up.weight");
    add_alpha(content, module, prefix + module.name);
  }
  content.metadata = {{"format", "pt"}};
  return content;
}

}  // namespace

LoraContent lora_content(const std::vector<LoraFileModule>& modules, const LoraOutput& output) {
  LoraContent content;
  if (output.format == "peft") {
    content = peft_content(modules);
  } else if (output.format == "kohya") {
    content = kohya_content(modules, output);
  } else if (output.format == "comfyui") {
    content = comfyui_content(modules, output);
  } else {
    content = diffusers_content(modules);
  }
  if (output.dtype) {
    for (auto& [name, tensor] : content.tensors) {
      if (!name.ends_with(".alpha")) tensor = tensor.to(*output.dtype);
    }
  }
  if (output.timestep_range) content.metadata[nn::kTimestepRangeKey] = output.timestep_range->text();
  return content;
}

}  // namespace prefusion::tools

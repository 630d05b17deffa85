#include "layouts/single_file.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "core/error.h"

namespace prefusion::layouts {
namespace {

bool starts_with_any(const std::string& name, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

// What training leaves within a network's names: losses, averages, buffers that follow from the code.
bool is_residue(const ComponentLayout& component, const std::string& name) {
  if (component.kind == NetworkKind::kAutoencoder) return starts_with_any(name, {"loss.", "model_ema."});
  if (component.kind == NetworkKind::kT5) return name == "encoder.embed_tokens.weight";  // shared.weight once more
  if (component.kind != NetworkKind::kOpenClip) return false;
  const bool has_projection = std::string_view(component.class_name) == "CLIPTextModelWithProjection";
  return name == "logit_scale" || name == "attn_mask" || (name == "text_projection" && !has_projection);
}

TensorSources below(const TensorSources& tensors, const std::string& prefix) {
  TensorSources found;
  for (auto entry = tensors.lower_bound(prefix); entry != tensors.end() && entry->first.starts_with(prefix); ++entry) {
    found.emplace(entry->first.substr(prefix.size()), entry->second);
  }
  return found;
}

// Names of a file that is a denoiser and nothing else.
TensorSources unprefixed(const TensorSources& tensors, const FamilyInfo& info) {
  TensorSources found;
  for (const auto& [name, source] : tensors) {
    bool is_other = name.starts_with("text_encoders.");
    for (const auto& component : info.components) {
      for (const std::string prefix : component.prefixes) is_other |= !prefix.empty() && name.starts_with(prefix);
    }
    if (!is_other) found.emplace(name, source);
  }
  return found;
}

struct Found {
  std::string prefix;
  TensorSources tensors;
};

std::optional<Found> find_component(const TensorSources& tensors, const FamilyInfo& info,
                                    const ComponentLayout& component) {
  for (const std::string prefix : component.prefixes) {
    Found found{prefix, prefix.empty() ? unprefixed(tensors, info) : below(tensors, prefix)};
    if (!found.tensors.empty()) return found;
  }
  return std::nullopt;
}

// Averages are kept under the name of the weight without its dots.
void take_averages(const TensorSources& tensors, TensorSources& denoiser, const std::string& where) {
  for (auto& [name, source] : denoiser) {
    std::string flat = "diffusion_model." + name;
    flat.erase(std::remove(flat.begin(), flat.end(), '.'), flat.end());
    const auto average = tensors.find("model_ema." + flat);
    check_input(average != tensors.end(), where, ": has no averaged weights (model_ema.", flat, "); leave out --ema");
    source = average->second;
  }
}

bool is_kept(const ComponentLayout& component, Family family, const std::string& name, const SplitOptions& options) {
  if (is_residue(component, name)) return false;
  constexpr std::string_view kBlocks = "transformer.resblocks.";
  if (family != Family::kSd2 || component.kind != NetworkKind::kOpenClip || !name.starts_with(kBlocks)) return true;
  return std::atoll(name.c_str() + kBlocks.size()) < options.sd2_text_layers;
}

// CLIPTextModel of transformers 5.6 and later is saved without the prefix.
TensorSources with_text_model(const TensorSources& tensors) {
  TensorSources named;
  for (const auto& [name, source] : tensors) {
    const bool is_bare = starts_with_any(name, {"embeddings.", "encoder.", "final_layer_norm."});
    named.emplace(is_bare ? "text_model." + name : name, source);
  }
  return named;
}

}  // namespace

KeyMap layout_of_original(const ComponentLayout& component, const TensorSources& tensors, const std::string& where) {
  switch (component.kind) {
    case NetworkKind::kUnet: return unet_layout(unet_shape_of_original(tensors, where));
    case NetworkKind::kSd3Transformer: return sd3_layout(count_numbered(tensors, "joint_blocks."));
    case NetworkKind::kFluxTransformer: {
      const auto input = tensors.find("img_in.weight");
      check_input(input != tensors.end() && !input->second.shape.empty(), where, ": 'img_in.weight' is missing");
      return flux_layout(input->second.shape.front());
    }
    case NetworkKind::kAutoencoder: return autoencoder_layout(count_numbered(tensors, "decoder.up."));
    case NetworkKind::kOpenClip: return open_clip_layout();
    case NetworkKind::kClip:
    case NetworkKind::kT5: break;
  }
  return transformers_layout();
}

KeyMap layout_of_diffusers(const ComponentLayout& component, const TensorSources& tensors, const std::string& where) {
  switch (component.kind) {
    case NetworkKind::kUnet: return unet_layout(unet_shape_of_diffusers(tensors, where));
    case NetworkKind::kSd3Transformer: return sd3_layout(count_numbered(tensors, "transformer_blocks."));
    case NetworkKind::kAutoencoder: return autoencoder_layout(count_numbered(tensors, "decoder.up_blocks."));
    case NetworkKind::kOpenClip: return open_clip_layout();
    case NetworkKind::kFluxTransformer: return flux_layout(0);  // the width is needed to take apart, not to pack
    case NetworkKind::kClip:
    case NetworkKind::kT5: break;
  }
  return transformers_layout();
}

SingleFile split_single_file(const TensorSources& tensors, const SplitOptions& options, const std::string& where) {
  SingleFile file{.family = detect_family(tensors, where), .components = {}, .left_out = {}};
  const FamilyInfo& info = family_info(file.family);
  std::map<std::string, bool> is_used;
  for (const ComponentLayout& component : info.components) {
    auto found = find_component(tensors, info, component);
    if (!found) continue;
    const std::string name = where + " (" + component.folder + ")";
    if (options.use_ema && &component == &info.components.front()) take_averages(tensors, found->tensors, where);
    TensorSources kept;
    for (const auto& [key, source] : found->tensors) {
      if (!is_kept(component, file.family, key, options)) continue;
      kept.emplace(key, source);
      is_used[found->prefix + key] = true;
    }
    const KeyMap layout = layout_of_original(component, kept, name);
    file.components.push_back({&component, original_to_diffusers(kept, layout, name)});
  }
  for (const auto& [name, source] : tensors) {
    if (!is_used.contains(name)) file.left_out.push_back(name);
  }
  return file;
}

TensorSources join_single_file(Family family, const std::vector<ComponentWeights>& components,
                               const std::string& where) {
  TensorSources joined;
  for (const ComponentWeights& component : components) {
    const ComponentLayout& layout = *component.layout;
    const std::string name = where + " (" + layout.folder + ")";
    const bool is_clip = layout.kind == NetworkKind::kClip || layout.kind == NetworkKind::kOpenClip;
    TensorSources weights = is_clip ? with_text_model(component.weights) : component.weights;
    // OpenCLIP counts positions itself.
    if (layout.kind == NetworkKind::kOpenClip) weights.erase("text_model.embeddings.position_ids");
    // A FLUX or SD3 transformer by itself goes by its bare names, as Black Forest Labs publishes it.
    const bool is_bare = family == Family::kFlux && components.size() == 1;
    const std::string prefix = is_bare ? layout.prefixes.back() : layout.prefixes.front();
    for (auto& [key, source] : diffusers_to_original(weights, layout_of_diffusers(layout, weights, name), name)) {
      joined.emplace(prefix + key, std::move(source));
    }
  }
  return joined;
}

}  // namespace prefusion::layouts

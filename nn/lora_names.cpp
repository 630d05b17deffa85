#include "nn/lora_names.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace prefusion::nn {
namespace {

struct Suffix {
  std::string_view text;
  LoraPart part;
  LoraDialect dialect;
};

constexpr std::array<Suffix, 9> kSuffixes = {{
    {".lora_linear_layer.down.weight", LoraPart::kA, LoraDialect::kDiffusersOld},
    {".lora_linear_layer.up.weight", LoraPart::kB, LoraDialect::kDiffusersOld},
    {".lora_down.weight", LoraPart::kA, LoraDialect::kKohya},
    {".lora_up.weight", LoraPart::kB, LoraDialect::kKohya},
    {".lora.down.weight", LoraPart::kA, LoraDialect::kDiffusersOld},
    {".lora.up.weight", LoraPart::kB, LoraDialect::kDiffusersOld},
    {"_lora.down.weight", LoraPart::kA, LoraDialect::kDiffusersOld},
    {"_lora.up.weight", LoraPart::kB, LoraDialect::kDiffusersOld},
    {".alpha", LoraPart::kAlpha, LoraDialect::kDiffusers},
}};

struct Variant {
  std::string_view text;
  const char* name;
};

// Anywhere in the part of a key after the module's name.
constexpr std::array<Variant, 12> kOtherMethods = {{
    {"dora_scale", "DoRA"},
    {"lora_magnitude_vector", "DoRA"},
    {".hada_", "LoHa"},
    {".lokr_", "LoKr"},
    {".oft_", "OFT"},
    {".boft_", "BOFT"},
    {".ia3_", "IA3"},
    {".lora_mid.", "a LoRA with a CP-decomposed convolution (lora_mid)"},
    {".lora_embedding_", "a LoRA on an embedding"},
    {".lora_up.bias", "a LoRA with biases"},
    {".lora_down.bias", "a LoRA with biases"},
    {".diff_b", "a full difference of weights"},
}};

void refuse_other_methods(const std::string& key, const std::string& where) {
  for (const auto& method : kOtherMethods) {
    check_input(key.find(method.text) == std::string::npos, where, ": '", key, "' belongs to ", method.name,
                ", which is not supported; convert or merge it with its own tools first");
  }
  check_input(!key.ends_with(".diff"), where, ": '", key,
              "' holds a full difference of weights, which is not supported");
  const bool is_peft = key.find(".lora_A.") != std::string::npos || key.find(".lora_B.") != std::string::npos;
  check_input(!is_peft || !key.ends_with(".bias"), where, ": '", key,
              "' belongs to a LoRA with biases (lora_bias), which is not supported");
}

bool strip_prefix(std::string& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.erase(0, prefix.size());
  return true;
}

// "...lora_A.weight" or "...lora_A.<adapter>.weight".
bool strip_peft_suffix(std::string& module, LoraKey& key) {
  constexpr std::string_view kWeight = ".weight";
  if (!module.ends_with(kWeight)) return false;
  for (const auto& [marker, part] : {std::pair{".lora_A", LoraPart::kA}, std::pair{".lora_B", LoraPart::kB}}) {
    const size_t at = module.rfind(marker);
    if (at == std::string::npos) continue;
    const std::string rest = module.substr(at + 7, module.size() - at - 7 - kWeight.size());
    if (!rest.empty() && (rest[0] != '.' || rest.find('.', 1) != std::string::npos)) continue;
    key.adapter = rest.empty() ? "" : rest.substr(1);
    key.part = part;
    module.erase(at);
    return true;
  }
  return false;
}

bool strip_suffix(std::string& module, LoraKey& key) {
  if (strip_peft_suffix(module, key)) return true;
  for (const auto& suffix : kSuffixes) {
    if (!module.ends_with(suffix.text)) continue;
    key.part = suffix.part;
    key.dialect = suffix.dialect;
    module.erase(module.size() - suffix.text.size());
    return true;
  }
  return false;
}

void strip_component(std::string& module, LoraKey& key) {
  const auto take = [&](std::string_view prefix, LoraComponent component, LoraDialect dialect) {
    if (!strip_prefix(module, prefix)) return false;
    key.component = component;
    key.dialect = std::max(key.dialect, dialect);
    return true;
  };
  if (strip_prefix(module, "base_model.model.")) key.dialect = std::max(key.dialect, LoraDialect::kPeft);
  const bool named = take("lora_unet_", LoraComponent::kUnet, LoraDialect::kKohya) ||
                     take("lora_transformer_", LoraComponent::kTransformer, LoraDialect::kKohya) ||
                     take("lora_te2_", LoraComponent::kTextEncoder2, LoraDialect::kKohya) ||
                     take("lora_te1_", LoraComponent::kTextEncoder, LoraDialect::kKohya) ||
                     take("lora_te_", LoraComponent::kTextEncoder, LoraDialect::kKohya) ||
                     take("text_encoder_2.", LoraComponent::kTextEncoder2, LoraDialect::kDiffusers) ||
                     take("text_encoder.", LoraComponent::kTextEncoder, LoraDialect::kDiffusers) ||
                     take("text_encoders.clip_l.transformer.", LoraComponent::kTextEncoder, LoraDialect::kDiffusers) ||
                     take("text_encoders.clip_g.transformer.", LoraComponent::kTextEncoder2, LoraDialect::kDiffusers) ||
                     take("transformer.", LoraComponent::kTransformer, LoraDialect::kDiffusers) ||
                     take("diffusion_model.", LoraComponent::kUnet, LoraDialect::kDiffusers) ||
                     take("unet.", LoraComponent::kUnet, LoraDialect::kDiffusers);
  const bool wrapped = strip_prefix(module, "base_model.model.");
  if (!named || wrapped) key.dialect = std::max(key.dialect, LoraDialect::kPeft);
}

// The attention processors of old diffusers files: "attn1.processor.to_q_lora", for CLIP as well.
void modernise(std::string& module, LoraKey& key, bool had_lora_suffix) {
  constexpr std::string_view kProcessor = ".processor.";
  const size_t processor = module.find(kProcessor);
  if (processor != std::string::npos) {
    module.replace(processor, kProcessor.size(), ".");
    key.dialect = std::max(key.dialect, LoraDialect::kDiffusersOld);
  }
  if (!had_lora_suffix) return;
  const bool is_text = !is_denoiser(key.component);
  constexpr std::array<std::array<std::string_view, 3>, 4> kNames = {{{".to_q", ".to_q", ".q_proj"},
                                                                      {".to_k", ".to_k", ".k_proj"},
                                                                      {".to_v", ".to_v", ".v_proj"},
                                                                      {".to_out", ".to_out.0", ".out_proj"}}};
  for (const auto& [old_name, unet_name, text_name] : kNames) {
    if (!module.ends_with(old_name)) continue;
    module.replace(module.size() - old_name.size(), old_name.size(), is_text ? text_name : unet_name);
    return;
  }
}

std::string flat_name(std::string path) {
  std::replace(path.begin(), path.end(), '.', '_');
  return path;
}

std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (!text.empty() && text.front() == '_') text.remove_prefix(1);
  return value;
}

std::string resnet_part(std::string_view part) {
  constexpr std::array<std::array<std::string_view, 2>, 4> kNames = {{{"in_layers_2", "conv1"},
                                                                      {"out_layers_3", "conv2"},
                                                                      {"emb_layers_1", "time_emb_proj"},
                                                                      {"skip_connection", "conv_shortcut"}}};
  for (const auto& [original, diffusers] : kNames) {
    if (part == original) return std::string(diffusers);
  }
  return std::string(part);
}

// The layers of one numbered entry: 0 a resnet (or the downsampler), 1 an attention, then the upsampler.
std::optional<std::string> block_layer(const std::string& block, int64_t layer, std::string_view rest) {
  const auto inner = take_number(rest);
  if (!inner) return std::nullopt;
  if (rest == "op") return block + "_downsamplers_0_conv";
  if (rest == "conv") return block + "_upsamplers_0_conv";
  if (*inner == 0) return concat(block, "_resnets_", layer, "_", resnet_part(rest));
  if (*inner == 1) return concat(block, "_attentions_", layer, "_", rest);
  return std::nullopt;
}

}  // namespace

const char* component_name(LoraComponent component) {
  switch (component) {
    case LoraComponent::kUnet: return "unet";
    case LoraComponent::kTransformer: return "transformer";
    case LoraComponent::kTextEncoder: return "text_encoder";
    case LoraComponent::kTextEncoder2: return "text_encoder_2";
  }
  return "unet";
}

bool is_denoiser(LoraComponent component) {
  return component == LoraComponent::kUnet || component == LoraComponent::kTransformer;
}

const char* dialect_name(LoraDialect dialect) {
  switch (dialect) {
    case LoraDialect::kDiffusers: return "diffusers";
    case LoraDialect::kPeft: return "peft";
    case LoraDialect::kDiffusersOld: return "diffusers-old";
    case LoraDialect::kKohya: return "kohya";
  }
  return "diffusers";
}

std::optional<LoraKey> parse_lora_key(const std::string& key, const std::string& where) {
  refuse_other_methods(key, where);
  LoraKey parsed;
  std::string module = key;
  const bool had_lora_suffix =
      key.ends_with("_lora.down.weight") || key.ends_with("_lora.up.weight") || key.ends_with("_lora.alpha");
  if (!strip_suffix(module, parsed)) return std::nullopt;
  strip_component(module, parsed);
  if (had_lora_suffix && module.ends_with("_lora")) module.erase(module.size() - 5);
  modernise(module, parsed, had_lora_suffix);
  if (module.empty()) return std::nullopt;
  parsed.module = std::move(module);
  return parsed;
}

LoraNameIndex::LoraNameIndex(const std::vector<std::string>& paths) {
  constexpr std::string_view kFirstBlock = "down_blocks.0.resnets.";
  for (const auto& path : paths) {
    const std::string flat = flat_name(path);
    const auto [entry, is_new] = by_flat_name_.emplace(flat, path);
    check_input(is_new, "the layers ", entry->second, " and ", path, " cannot be told apart in a LoRA file");
    if (!path.starts_with(kFirstBlock)) continue;
    std::string_view rest = std::string_view(path).substr(kFirstBlock.size());
    if (const auto layer = take_number(rest)) layers_per_block_ = std::max(layers_per_block_, *layer + 1);
  }
}

std::optional<std::string> LoraNameIndex::find_flat(const std::string& flat) const {
  const auto found = by_flat_name_.find(flat);
  if (found == by_flat_name_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string> LoraNameIndex::find(const std::string& module) const {
  constexpr std::string_view kTextModel = "text_model_";
  const std::string flat = flat_name(module);
  if (auto path = find_flat(flat)) return path;
  if (flat.starts_with(kTextModel)) {
    if (auto path = find_flat(flat.substr(kTextModel.size()))) return path;
  }
  if (auto path = find_flat(std::string(kTextModel) + flat)) return path;
  if (flat.ends_with("_to_out")) return find_flat(flat + "_0");
  if (const auto renamed = diffusers_block_name(flat, layers_per_block_)) return find_flat(*renamed);
  return std::nullopt;
}

std::optional<std::string> diffusers_block_name(const std::string& original, int64_t layers_per_block) {
  constexpr std::array<std::array<std::string_view, 2>, 6> kOutside = {{{"input_blocks_0_0", "conv_in"},
                                                                        {"out_2", "conv_out"},
                                                                        {"time_embed_0", "time_embedding_linear_1"},
                                                                        {"time_embed_2", "time_embedding_linear_2"},
                                                                        {"label_emb_0_0", "add_embedding_linear_1"},
                                                                        {"label_emb_0_2", "add_embedding_linear_2"}}};
  for (const auto& [name, diffusers] : kOutside) {
    if (original == name) return std::string(diffusers);
  }
  std::string rest_text = original;
  const bool is_input = strip_prefix(rest_text, "input_blocks_");
  const bool is_output = !is_input && strip_prefix(rest_text, "output_blocks_");
  const bool is_middle = !is_input && !is_output && strip_prefix(rest_text, "middle_block_");
  if (!is_input && !is_output && !is_middle) return std::nullopt;
  std::string_view rest = rest_text;
  const auto index = take_number(rest);
  if (!index) return std::nullopt;
  if (is_middle) {
    if (*index == 1) return concat("mid_block_attentions_0_", rest);
    if (*index == 0 || *index == 2) return concat("mid_block_resnets_", *index / 2, "_", resnet_part(rest));
    return std::nullopt;
  }
  // Input entry 0 is conv_in; each down block has its layers and one downsampler, each up block one layer more.
  const int64_t position = is_input ? *index - 1 : *index;
  if (position < 0 || layers_per_block < 1) return std::nullopt;
  const std::string block = concat(is_input ? "down_blocks_" : "up_blocks_", position / (layers_per_block + 1));
  return block_layer(block, position % (layers_per_block + 1), rest);
}

}  // namespace prefusion::nn

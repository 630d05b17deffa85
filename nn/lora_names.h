#pragma once

#include <torch/nn/module.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

// How the dialects of LoRA files name things, and how those names find the layers of a network.
namespace prefusion::nn {

// The network a key belongs to, as files name it: a model's denoiser is a UNet or a transformer. Keys without a prefix
// belong to the denoiser, and count as the UNet's.
enum class LoraComponent { kUnet, kTransformer, kTextEncoder, kTextEncoder2 };
const char* component_name(LoraComponent component);  // "unet", "transformer", "text_encoder", "text_encoder_2"
bool is_denoiser(LoraComponent component);

enum class LoraPart { kA, kB, kAlpha };

// The file's family of names, by the oldest or most specific key seen.
enum class LoraDialect { kDiffusers, kPeft, kDiffusersOld, kKohya };
const char* dialect_name(LoraDialect dialect);

struct LoraKey {
  LoraComponent component = LoraComponent::kUnet;
  std::string module;   // as written, without prefix and suffix
  std::string adapter;  // PEFT's infix between lora_A and weight, usually empty
  LoraPart part = LoraPart::kA;
  LoraDialect dialect = LoraDialect::kDiffusers;
};

// The meaning of one key of a LoRA file, or nothing for a key that is no part of a LoRA. Input error, naming key and
// file, for what belongs to another method: DoRA, LoHa, LoKr, OFT, full differences, CP-decomposed convolutions.
std::optional<LoraKey> parse_lora_key(const std::string& key, const std::string& where);

// Finds layers by the names files use for them: the path itself, the path with underscores for dots (kohya), the block
// names of the original Stable Diffusion code, with or without CLIP's "text_model." prefix.
class LoraNameIndex {
 public:
  explicit LoraNameIndex(const std::vector<std::string>& paths);
  // The layer's path in the network.
  std::optional<std::string> find(const std::string& module) const;

 private:
  std::optional<std::string> find_flat(const std::string& flat) const;

  std::map<std::string, std::string> by_flat_name_;  // underscores for dots -> path
  int64_t layers_per_block_ = 0;                     // of the UNet's down blocks
};

// "down_blocks_0_attentions_0_..." for "input_blocks_1_1_...": the name of a layer of the original Stable Diffusion
// UNet in diffusers' numbering, both with underscores. Nothing for another name.
std::optional<std::string> diffusers_block_name(const std::string& original, int64_t layers_per_block);

}  // namespace prefusion::nn

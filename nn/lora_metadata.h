#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "nn/lora.h"

// The adapter description diffusers keeps in the header of a LoRA file: PEFT's LoraConfig as JSON, each key prefixed
// with its component ("unet.lora_alpha").
namespace prefusion::nn {

inline constexpr const char* kLoraMetadataKey = "lora_adapter_metadata";

// Ours beside it: "LOW:HIGH", the timesteps at which the denoiser's adapter acts. Other programs do not know it.
inline constexpr const char* kTimestepRangeKey = "prefusion_timestep_range";

// What an adapter description says about scaling.
class LoraDescription {
 public:
  LoraDescription() = default;
  // The keys of `component` ("unet"; "" for a config without prefixes) in a description. Input error, naming the key,
  // when the adapter is more than a LoRA: DoRA, biases, retrained modules, an initialisation that changed the base.
  LoraDescription(const Json& description, const std::string& component, const std::string& where);

  bool present() const { return present_; }
  // Alpha of the layer at `path`, with rank-stabilised scaling (alpha / sqrt(r), arXiv 2312.03732) folded in, so
  // that alpha / rank is the scale. Without a description alpha is the rank. Input error when the described
  // rank is another.
  double alpha(const std::string& path, int64_t rank) const;
  const std::vector<std::string>& target_modules() const { return target_modules_; }

 private:
  struct Pattern {
    std::shared_ptr<const void> regex;  // compiled
    double value;
  };
  void read_patterns(const Json& description, const std::string& key, std::vector<Pattern>& patterns) const;
  static const Pattern* first_match(const std::vector<Pattern>& patterns, const std::string& path);

  bool present_ = false;
  bool rank_stabilised_ = false;
  std::optional<double> rank_;
  double alpha_ = 8;  // PEFT's default
  std::vector<Pattern> rank_patterns_;
  std::vector<Pattern> alpha_patterns_;
  std::vector<std::string> target_modules_;
  std::string where_;
};

// PEFT's LoraConfig of an adapter as JSON, keys prefixed with `component`: the fields every PEFT version that diffusers
// accepts knows. The most common rank and alpha are the plain ones, the others go into the patterns.
Json describe_adapter(const LoraAdapter& adapter, const std::string& component);

// The same for an adapter that hangs on no network. `component` is empty for PEFT's own file, whose keys have no
// prefix.
struct DescribedLayer {
  std::string path;
  int64_t rank;
  double alpha;
};
Json describe_layers(const std::vector<DescribedLayer>& layers, std::vector<std::string> target_modules,
                     const std::string& component);

}  // namespace prefusion::nn

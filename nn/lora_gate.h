#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "core/weights.h"
#include "nn/lora.h"

namespace prefusion::nn {

// A LoRA among those that a gate fuses.
struct LoraExpert {
  std::string name;
  std::shared_ptr<LoraAdapter> adapter;
};

// LoRA experts fused by a gate that looks at timestep and layer, as "FantasyTalking2: Timestep-Layer Adaptive
// Preference Optimization for Audio-Driven Portrait Animation", arXiv 2508.11255, does it:
//   h + sum_k g_k(layer, t) LoRA_k(h),  g(layer, t) = softmax_k(heads_layer silu(hidden sinusoids(t)))
// over the experts that have the layer and, where they are restricted to a part of the schedule, act at t; where there
// is none nothing is added. All tensors are fp32 on the device of the network.
class LoraGate {
 public:
  // A gate over experts that are attached to the network, with `width` hidden units; it weighs them equally. Usage
  // error for fewer than two experts and for a network that does not announce timesteps.
  static std::shared_ptr<LoraGate> create(torch::nn::Module& network, std::vector<LoraExpert> experts, int64_t width,
                                          at::Generator generator);

  // Gate and experts of a file that save() wrote, the experts' outputs scaled by `user_scale`. Input error when it is
  // none, is damaged, or does not fit the network.
  static std::shared_ptr<LoraGate> load(torch::nn::Module& network, const std::filesystem::path& path,
                                        double user_scale);
  void save(const std::filesystem::path& path) const;

  // The experts' weights at timesteps [B] (int64 or float) in each of layers(): [B, layers, experts] fp32.
  at::Tensor weights(const at::Tensor& timesteps) const;

  // The gate's own tensors, "gate.hidden.weight" and so on; the live ones.
  std::vector<NamedTensor> parameters() const;
  const std::vector<std::string>& layers() const { return layers_; }  // paths, sorted
  const std::vector<LoraExpert>& experts() const { return experts_; }

 private:
  LoraGate() = default;

  // Gives each branch of the experts a slot for its weights, which are written before every pass. The network keeps the
  // gate.
  static void hang_on(const std::shared_ptr<LoraGate>& gate, torch::nn::Module& network);

  std::vector<LoraExpert> experts_;
  std::vector<std::string> layers_;
  at::Tensor has_layer_;                    // [layers, experts] bool
  at::Tensor hidden_weight_, hidden_bias_;  // [width, sinusoids], [width]
  at::Tensor heads_weight_, heads_bias_;    // [layers * experts, width], [layers * experts]
};

// Whether a safetensors file says that it holds experts and their gate.
bool is_lora_gate(const Metadata& metadata);

// The experts of such a file, "NAME" or "NAME at LOW:HIGH". Input error, naming `where`, for a damaged header.
std::vector<std::string> expert_names(const Metadata& metadata, const std::string& where);

}  // namespace prefusion::nn

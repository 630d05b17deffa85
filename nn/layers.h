#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/safetensors.h"
#include "core/weights.h"

// The leaf layers all networks of prefusion are made of. Their parameters are named "weight" and "bias" like PyTorch's,
// so named_parameters() of a network equals the keys of its checkpoint. A constructor only allocates: values come from
// load_weights_strict or init_weights.
namespace prefusion::nn {

// A low-rank branch beside a layer ("LoRA", arXiv 2106.09685): output += scale * B(A(input)).
struct LoraBranch {
  at::Tensor A;  // Linear: [r, in]; Conv2d: [r, in, kh, kw]
  at::Tensor B;  // Linear: [out, r]; Conv2d: [out, r, 1, 1]
  double scale = 1.0;
  int adapter = 0;  // which adapter of the network it belongs to
  // Further factors, one an item of the pass: [B], written before the pass by who hangs on its timesteps
  // (nn/timestep_range.h). Null: none.
  std::shared_ptr<at::Tensor> item_weights;
};

struct RestingWeight;

// A layer that low-rank branches can be hung on. The branches are no parameters of the layer: its checkpoint keys stay
// the public ones, and whoever attaches an adapter (nn/lora.h) owns its tensors.
class LoraTarget {
 public:
  virtual ~LoraTarget() = default;
  std::vector<LoraBranch>& lora_branches() { return lora_branches_; }
  // The base weight: [out, in] or [out, in, kh, kw].
  virtual at::Tensor& base_weight() = 0;
  // How a frozen base weight comes to the layer that is not simply there (nn/resting_weight.h); null: it is there.
  const std::shared_ptr<const RestingWeight>& resting_weight() const { return resting_weight_; }
  void set_resting_weight(std::shared_ptr<const RestingWeight> resting) { resting_weight_ = std::move(resting); }
  // Where and in what the layer computes: as the base weight, unless that is kept in another way.
  at::Device compute_device();
  at::ScalarType compute_dtype();
  // Adapter-off switch; use nn::AdapterOff (nn/lora.h), which restores it.
  void set_lora_enabled(bool enabled) { lora_enabled_ = enabled; }
  bool lora_enabled() const { return lora_enabled_; }

 protected:
  std::vector<LoraBranch> lora_branches_;
  bool lora_enabled_ = true;
  std::shared_ptr<const RestingWeight> resting_weight_;
};

using Activation = at::Tensor (*)(const at::Tensor&);
at::Tensor silu(const at::Tensor& input);

class LinearImpl : public torch::nn::Module, public LoraTarget {
 public:
  LinearImpl(int64_t in_features, int64_t out_features, bool has_bias = true);
  at::Tensor forward(const at::Tensor& input);  // [..., in] -> [..., out]
  at::Tensor& base_weight() override { return weight; }

  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out] or undefined

 private:
  bool has_one_plain_branch() const;
};
TORCH_MODULE(Linear);

struct Conv2dOptions {
  int64_t in_channels;
  int64_t out_channels;
  int64_t kernel_size = 3;
  int64_t stride = 1;
  int64_t padding = 1;
  bool has_bias = true;
};

class Conv2dImpl : public torch::nn::Module, public LoraTarget {
 public:
  explicit Conv2dImpl(const Conv2dOptions& options);
  at::Tensor forward(const at::Tensor& input);  // [B, in, H, W] -> [B, out, H', W']
  at::Tensor& base_weight() override { return weight; }

  Conv2dOptions options;
  at::Tensor weight;  // [out, in, k, k]
  at::Tensor bias;    // [out] or undefined
};
TORCH_MODULE(Conv2d);

class GroupNormImpl : public torch::nn::Module {
 public:
  GroupNormImpl(int64_t num_groups, int64_t num_channels, double eps);
  at::Tensor forward(const at::Tensor& input);  // [B, C, ...]
  // activation(forward(input + added)), with added [B, C] on every pixel where it is defined; in one pass, or keeping
  // less for the backward pass, where the activation is silu.
  at::Tensor forward_activated(const at::Tensor& input, Activation activation, const at::Tensor& added = {});

  at::Tensor weight;  // [C]
  at::Tensor bias;    // [C]

 private:
  at::Tensor in_channels_last(const at::Tensor& input, const at::Tensor& added, bool with_silu);

  int64_t num_groups_;
  double eps_;
};
TORCH_MODULE(GroupNorm);

class LayerNormImpl : public torch::nn::Module {
 public:
  explicit LayerNormImpl(int64_t dim, double eps = 1e-5);
  at::Tensor forward(const at::Tensor& input);  // normalises the last dimension

  at::Tensor weight;  // [dim]
  at::Tensor bias;    // [dim]

 private:
  double eps_;
};
TORCH_MODULE(LayerNorm);

class EmbeddingImpl : public torch::nn::Module {
 public:
  EmbeddingImpl(int64_t num_embeddings, int64_t dim);
  at::Tensor forward(const at::Tensor& ids);  // int64 [...] -> [..., dim]

  at::Tensor weight;  // [num_embeddings, dim]
};
TORCH_MODULE(Embedding);

// Activation by its config name: "silu", "swish", "gelu" (erf), "gelu_new"/"gelu_pytorch_tanh" (tanh), "quick_gelu",
// "relu", "mish". Input error for another, naming `where`.
Activation activation_by_name(const std::string& name, const std::string& where);

// Parameters and buffers by checkpoint name.
std::vector<NamedTensor> named_tensors(const torch::nn::Module& module);
TensorMap tensor_map(const torch::nn::Module& module);

// Loads a component folder's weights (core/safetensors.h read_weights) into the module, strictly. Without a dtype
// floating tensors keep that of the file.
void load_module(torch::nn::Module& module, const TensorMap& weights, std::optional<at::ScalarType> dtype,
                 at::Device device, const std::string& where);

// A module with parameters of its own beside its layers.
class InitializesItself {
 public:
  virtual ~InitializesItself() = default;
  virtual void init_own_weights(at::Generator generator) = 0;  // called by init_weights
};

// PyTorch's default initialisation of every layer below `module` (Linear and Conv2d: uniform within 1/sqrt(fan_in);
// norms: one and zero; embeddings: standard normal times 0.02; positions: their sines and cosines), from the generator
// given.
void init_weights(torch::nn::Module& module, at::Generator generator);

}  // namespace prefusion::nn

#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/weights.h"
#include "nn/layers.h"
#include "nn/timestep_range.h"

// Low-rank adapters ("LoRA", arXiv 2106.09685) on the Linear and Conv2d leaves of a network: making, switching off,
// merging, and the file formats of diffusers/PEFT and kohya.
namespace prefusion::nn {

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 8;  // the branch is scaled by alpha / rank
  // A module is a target when its path equals an entry or ends with ".entry", as PEFT matches; the single entry
  // "all-linear" takes every Linear.
  std::vector<std::string> target_modules = {"to_q", "to_k", "to_v", "to_out.0"};
  std::optional<TimestepRange> timestep_range;  // the adapter acts at these timesteps alone; absent: at all
};

// The low-rank branch of one layer.
struct LoraEntry {
  std::string path;                          // of the layer in its network
  std::shared_ptr<torch::nn::Module> layer;  // a LoraTarget
  at::Tensor A;                              // Linear: [r, in]; Conv2d: [r, in, kh, kw]; fp32
  at::Tensor B;                              // Linear: [out, r]; Conv2d: [out, r, 1, 1]; fp32
  double alpha = 1;

  int64_t rank() const { return A.size(0); }
  double scaling() const { return alpha / static_cast<double>(rank()); }
};

// One adapter of one network. The network holds the branches, so an adapter may go out of scope without effect on the
// network; remove() takes it off. A network can carry several adapters, their outputs add up.
class LoraAdapter {
 public:
  // A new trainable adapter: A normal with standard deviation 1 / rank (PEFT's "gaussian"), drawn on the CPU so that
  // every device starts alike; B zero. Both fp32 on the device of the layer. The network's own parameters stop
  // requiring gradients. Usage error when no layer is a target, or when the rank exceeds what a target can have.
  static std::shared_ptr<LoraAdapter> create(torch::nn::Module& network, const LoraConfig& config,
                                             at::Generator generator);

  // Attaches branches that already have values (from a file). `config` describes them when they are saved again.
  static std::shared_ptr<LoraAdapter> attach(std::vector<LoraEntry> entries, LoraConfig config);

  // A and B of every layer in network order, named "<path>.lora_A.weight" and "<path>.lora_B.weight". The tensors are
  // the live ones: an optimizer that writes to them trains the network.
  std::vector<NamedTensor> parameters() const;
  int64_t num_parameters() const;
  void set_requires_grad(bool required);

  // A factor on top of alpha / rank; 1 after creation.
  void set_scale(double scale);
  double scale() const { return scale_; }

  // From now on the adapter acts at these timesteps of its network alone, as experts of a part of the schedule do
  // ("AlignHuman", arXiv 2506.11144). Part of a file.
  void restrict_to(const TimestepRange& range, TimestepAnnouncer& network);

  // Takes the branches off the network. The tensors stay readable through parameters().
  void remove();

  int id() const { return id_; }
  const LoraConfig& config() const { return config_; }
  const std::vector<LoraEntry>& entries() const { return entries_; }

 private:
  LoraAdapter() = default;

  int id_ = 0;
  double scale_ = 1.0;
  LoraConfig config_;
  std::vector<LoraEntry> entries_;
};

// While one of these lives, the network answers as if it had no adapter (or not the one given): the reference policy of
// a LoRA run. Whatever ends the scope restores the state before. Guards nest when they end in reverse order.
class AdapterOff {
 public:
  explicit AdapterOff(torch::nn::Module& network);
  explicit AdapterOff(const LoraAdapter& adapter);
  ~AdapterOff();
  AdapterOff(const AdapterOff&) = delete;
  AdapterOff& operator=(const AdapterOff&) = delete;

 private:
  struct Saved {
    std::shared_ptr<torch::nn::Module> layer;
    bool enabled;
    std::optional<std::vector<LoraBranch>> branches;  // where the guard took one off
  };
  std::vector<Saved> saved_;
};

// Folds every branch into the weight beside it (W + scale * B A, computed in fp32) and drops it. Usage error for an
// adapter that depends on the timestep.
void merge_lora(torch::nn::Module& network);

// The layers of a network a branch can be hung on, by path, in network order.
struct LoraLayer {
  std::string path;
  std::shared_ptr<torch::nn::Module> layer;
  LoraTarget* target;
};
std::vector<LoraLayer> lora_layers(const torch::nn::Module& network);

struct LoraLoadReport {
  std::filesystem::path file;
  std::string dialect;                   // "diffusers", "diffusers-old", "peft" or "kohya"
  std::vector<std::string> matched;      // "unet.<path>", "transformer.<path>", "text_encoder.<path>", ...
  std::vector<std::string> unmatched;    // keys of the file that fit no layer
  std::map<std::string, int64_t> ranks;  // by matched name
  std::map<std::string, double> alphas;  // by matched name
  // Null where the file has nothing for the network. Not trainable until set_requires_grad(true).
  std::shared_ptr<LoraAdapter> unet;  // the denoiser, a transformer as well
  std::shared_ptr<LoraAdapter> text_encoder;
  std::shared_ptr<LoraAdapter> text_encoder_2;
};

// Loads a LoRA of any common dialect (nn/lora_file.h lists them) as new adapters of the networks, scaled by
// `user_scale` and restricted to the timesteps the file names. `path` is the file, or a folder that holds
// pytorch_lora_weights.safetensors. Keys that fit no layer, or belong to a network not given (null), are reported and
// warned about. Input error when nothing fits, when a shape does not, or when the file holds DoRA, LoHa, LoKr or
// another variant.
LoraLoadReport load_lora(torch::nn::Module& denoiser, torch::nn::Module* text_encoder,
                         const std::filesystem::path& path, double user_scale,
                         torch::nn::Module* text_encoder_2 = nullptr);

enum class LoraFormat { kDiffusers, kKohya };

// "diffusers" or "kohya"; usage error otherwise.
LoraFormat parse_lora_format(const std::string& name);

// Writes adapters (any may be null, not all) to one safetensors file, as diffusers' save_lora_weights or kohya's
// trainer do. `component` is what files call the denoiser: "unet" or "transformer". The factor of set_scale is not part
// of a file.
void save_lora(const std::filesystem::path& path, const LoraAdapter* denoiser, const LoraAdapter* text_encoder,
               LoraFormat format, const LoraAdapter* text_encoder_2 = nullptr, const std::string& component = "unet");

}  // namespace prefusion::nn

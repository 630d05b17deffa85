#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "core/safetensors.h"
#include "nn/activation_checkpoint.h"
#include "nn/timestep_range.h"

namespace prefusion::unet {

// What a denoiser is conditioned on besides the timestep.
struct Conditioning {
  at::Tensor encoder_hidden_states;  // [B, L, D]
  at::Tensor encoder_mask;           // [B, L] bool, true for tokens to attend to; undefined: all of them
  at::Tensor pooled;                 // [B, P] where the model has it
  at::Tensor time_ids;               // [B, n] where the model has them: SDXL 6, its refiner 5; PixArt 3: height and
                                     // width in pixels, height / width
  at::Tensor guidance;               // [B] fp32, the scale a guidance-distilled model is told (FLUX.1 dev)
  at::Tensor user_states;  // [B, M, U] of the users asked for, where a user adapter is attached; else undefined
};

// The given rows (int64 [M], on the device of the states).
Conditioning select_rows(const Conditioning& conditioning, const at::Tensor& rows);

// What the rest of the program needs to know of a denoiser.
struct DenoiserInfo {
  std::string class_name;          // "UNet2DConditionModel"
  std::string component = "unet";  // its folder in a model, and the prefix of its keys in a LoRA file: or "transformer"
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t sample_size = 64;           // default latent height
  int64_t sample_width = 64;          // default latent width, nearly always the same
  int64_t size_multiple = 1;          // latent height and width must be multiples of this: the patch size
  int64_t cross_attention_dim = 768;  // width of encoder_hidden_states
  bool is_class_conditional = false;  // encoder_hidden_states are one token, a one in the place of the class
  int64_t pooled_dim = 0;             // width of pooled, where the config says it
  bool uses_pooled = false;
  bool uses_time_ids = false;
  bool uses_guidance = false;  // exactly then a pass takes Conditioning::guidance
  bool is_flow = false;        // timesteps are real numbers, sigma * 1000, and the prediction is noise - latents
};

// The one face of all denoisers. Checkpoint keys are the module's named_parameters(). An implementation announces the
// timesteps of every pass.
class Denoiser : public torch::nn::Module, public nn::TimestepAnnouncer {
 public:
  // noisy_latents [B, C, H, W], timesteps [B] (int64, or float for flow models) -> prediction [B, C, H, W].
  virtual at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                             const Conditioning& conditioning) = 0;
  virtual const DenoiserInfo& info() const = 0;

  // Adds to the weights of a checkpoint what it may leave out because it can be computed, and takes out what
  // checkpoints of its class are known to carry beside the network.
  virtual void complete_weights(TensorMap& weights) const {}

  // How many numbers `time_ids` has for a model whose pooled states have that width; 0: it is not asked for. Input
  // error where no number fits.
  virtual int64_t num_time_ids(int64_t /*pooled_width*/) const { return 0; }

  // Recompute the activations of blocks in the backward pass instead of keeping them: of all (true), of none, or of
  // those that a planner chooses.
  void set_gradient_checkpointing(nn::Recompute recompute) { recompute_ = std::move(recompute); }

 protected:
  nn::Recompute recompute_;
};

// The part of a prediction [B, out_channels, H, W] that is of the latents: models that learn variances give as many
// channels more for these.
at::Tensor without_variances(const at::Tensor& prediction, int64_t latent_channels);

// Where a diffusers model keeps its denoiser: `transformer/` where there is one, else `unet/`.
std::filesystem::path denoiser_folder(const std::filesystem::path& model_dir);

// The denoiser of a component folder (denoiser_folder() of a diffusers model): config.json says which class.
std::shared_ptr<Denoiser> load_denoiser(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device);

// The same network with the weights of its blocks in host memory, as the file has them (nn/frozen_weights.h): for
// models that do not fit the device. Nothing of it can be trained but adapters.
std::shared_ptr<Denoiser> load_streamed_denoiser(const std::filesystem::path& folder, at::ScalarType dtype,
                                                 at::Device device);

// The same network with allocated but unset weights, for pretraining; `config_json` is the text of a config.json.
std::shared_ptr<Denoiser> make_denoiser(const std::string& config_json, const std::string& where);

}  // namespace prefusion::unet

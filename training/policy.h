#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "core/weights.h"
#include "nn/lora.h"
#include "nn/lora_gate.h"
#include "nn/user_adapter.h"
#include "training/align_options.h"
#include "training/text_policy.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// The network being trained: a denoiser with an adapter, or all of its weights.
struct Policy {
  std::shared_ptr<unet::Denoiser> denoiser;
  std::shared_ptr<nn::LoraAdapter> adapter;  // where a LoRA is trained
  std::shared_ptr<nn::UserAdapter> users;    // where an adapter that knows users is
  std::shared_ptr<nn::LoraGate> gate;        // where a gate over LoRAs is
  std::shared_ptr<TextPolicy> text;          // where text encoders are trained too
  std::vector<NamedTensor> trainable;        // by checkpoint name
};

// Loads the denoiser of a model folder and makes it trainable as the options say: all weights, a fresh adapter, or the
// one of --init-lora (merged into the weights for full fine-tuning). Adapters are fp32 whatever dtype is. What is
// trained of users is known when the data is: enroll_users (training/users.h).
Policy make_policy(const AlignOptions& options, at::ScalarType dtype, at::Device device);

// The network a run starts from, without anything trainable: a frozen reference. `folder` is a model folder.
std::shared_ptr<unet::Denoiser> load_start_denoiser(const std::filesystem::path& folder, const AlignOptions& options,
                                                    at::ScalarType dtype, at::Device device);

// Writes the trained weights to options.output: pytorch_lora_weights.safetensors, user_adapter.safetensors,
// gated_lora.safetensors, or the whole model folder with its denoiser replaced. `weights` are the values to write, in
// the order of policy.trainable.
void write_weights(const AlignOptions& options, const Policy& policy, const std::vector<NamedTensor>& weights);

}  // namespace prefusion::training

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tools/bench_report.h"

namespace prefusion::tools {

// What `prefusion bench` is asked for; each part reads what concerns it.
struct BenchOptions {
  std::string what;
  std::filesystem::path model;  // diffusers folder, of `score` the folder of a CLIP
  bool no_backward = false;
  bool uses_cuda_graphs = false;
  bool random_weights = false;          // the denoiser of a folder that has a config.json alone
  int64_t height_px = 0, width_px = 0;  // 0: the model's own size
  int64_t batch_size = 1;
  int64_t num_tokens = 77;
  int64_t pooled_width = 1280;  // of text states whose width the denoiser's config leaves open
  int64_t num_inference_steps = 20;
  double guidance_scale = 7.5;
  std::string prompt = "a photo of a red fox in the snow";
  std::vector<std::string> objectives;  // empty: diffusion-dpo
  std::string adapter;                  // lora (empty is, too), or full: all weights
  bool gradient_checkpointing = false;
  double activation_memory_gb = 0;  // 0: everything is kept
  std::vector<std::string> paths;   // of tune: ways of attention to try, ATen's in any case; empty: all
  std::vector<std::string> only;    // kernels whose name contains one of these; empty: all
  Repeats repeats;
  uint64_t seed = 0;
  bool shows_progress = true;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

// Kernels of ours at the shapes of diffusion models beside the ATen operations they replace.
std::vector<BenchRow> bench_kernels(const BenchOptions& options);

// One pass of a denoiser on random input: forward alone, and, if wanted, forward and backward for all weights.
std::vector<BenchRow> bench_denoiser(const BenchOptions& options);

// Training steps of objectives on random groups: noise, reference, policy, backward pass, optimizer; and, where the
// reference's errors could be cached, the same without its pass.
std::vector<BenchRow> bench_training(const BenchOptions& options);

// The paths of kernels/attention at every shape of a denoiser's attentions; the fastest are entered into the table that
// attention() asks.
std::vector<BenchRow> bench_tune(const BenchOptions& options);

// Making pictures, and the parts of it: text encoders, denoiser calls, decoder.
std::vector<BenchRow> bench_generation(const BenchOptions& options);

// A PickScore-like model on random pictures that are in memory: preparing them, scoring prepared ones.
std::vector<BenchRow> bench_scoring(const BenchOptions& options);

}  // namespace prefusion::tools

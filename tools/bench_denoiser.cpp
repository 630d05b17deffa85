#include "tools/bench_denoiser.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/json_config.h"
#include "kernels/attention/attention.h"
#include "nn/channels_last.h"
#include "unet/graphed_denoiser.h"
#include "vae/autoencoder_config.h"

namespace prefusion::tools {
namespace {

// Pixels a latent stands for: the autoencoder's factor, or 8, which nearly all have, in a folder without one.
int64_t pixels_of_latent(const std::filesystem::path& model) {
  const auto config = model / "vae" / "config.json";
  if (!std::filesystem::exists(config)) return 8;
  const auto stages = vae::parse_autoencoder_config(read_json(config), config.string()).block_out_channels.size();
  return int64_t{1} << (stages - 1);
}

// The size of the latents in one direction, of a model that is asked for `size` pixels or its own.
int64_t latent_size(int64_t size_px, int64_t own, int64_t factor, int64_t patch, const char* flag) {
  if (size_px == 0) return own;
  check_usage(size_px > 0 && size_px % (factor * patch) == 0, flag, " ", size_px, ": this model takes multiples of ",
              factor * patch);
  return size_px / factor;
}

}  // namespace

void randomise(torch::nn::Module& network, at::ScalarType dtype, at::Device device) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : network.parameters()) parameter.normal_(0.0, 0.02);
  network.to(device, dtype);
  nn::to_fastest_layout(network);
}

std::shared_ptr<unet::Denoiser> open_bench_denoiser(const BenchOptions& options) {
  const auto folder = unet::denoiser_folder(options.model);
  if (!options.random_weights) return unet::load_denoiser(folder, options.dtype, options.device);
  const auto config = folder / "config.json";
  auto denoiser = unet::make_denoiser(read_json(config).dump(), config.string());
  at::manual_seed(options.seed);
  randomise(*denoiser, options.dtype, options.device);
  return denoiser;
}

DenoiserPass::DenoiserPass(const BenchOptions& options) : denoiser_(open_bench_denoiser(options)) {
  const unet::DenoiserInfo& info = denoiser_->info();
  const int64_t factor = pixels_of_latent(options.model), patch = info.size_multiple;
  const int64_t height = latent_size(options.height_px, info.sample_size, factor, patch, "--height");
  const int64_t width = latent_size(options.width_px, info.sample_width, factor, patch, "--width");
  const int64_t batch = options.batch_size;
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  noisy_latents_ = at::randn({batch, info.in_channels, height, width}, like);
  timesteps_ = at::full({batch}, 500, like.dtype(info.is_flow ? at::kFloat : at::kLong));
  const int64_t num_tokens = info.is_class_conditional ? 1 : options.num_tokens;
  conditioning_.encoder_hidden_states = at::randn({batch, num_tokens, info.cross_attention_dim}, like);
  const int64_t pooled = info.pooled_dim > 0 ? info.pooled_dim : options.pooled_width;
  if (info.uses_pooled) conditioning_.pooled = at::randn({batch, pooled}, like);
  if (const int64_t ids = denoiser_->num_time_ids(pooled); ids > 0)
    conditioning_.time_ids = at::ones({batch, ids}, like);
  if (info.uses_guidance) conditioning_.guidance = at::full({batch}, 3.5, like.dtype(at::kFloat));
}

at::Tensor DenoiserPass::predict() const {
  return denoiser_->forward(noisy_latents_, timesteps_, conditioning_);
}

void DenoiserPass::forward() const {
  const at::NoGradGuard no_grad;
  const kernels::ForwardOnly forward_only;
  predict();
}

void DenoiserPass::forward_as_graph() {
  const at::NoGradGuard no_grad;
  const kernels::ForwardOnly forward_only;
  if (!graphed_) graphed_ = std::make_shared<unet::GraphedDenoiser>(denoiser_);
  graphed_->forward(noisy_latents_, timesteps_, conditioning_);
}

void DenoiserPass::forward_and_backward() const {
  predict().to(at::kFloat).square().mean().backward();
  denoiser_->zero_grad();
}

std::string DenoiserPass::shape_text() const {
  return concat(noisy_latents_.size(0), " x ", noisy_latents_.size(2), " x ", noisy_latents_.size(3), " latents");
}

std::vector<BenchRow> bench_denoiser(const BenchOptions& options) {
  DenoiserPass pass(options);
  const auto row = [&](const char* name, const std::function<void()>& run) {
    return BenchRow{.name = concat(name, " of ", pass.shape_text()),
                    .timing = time_runs(run, options.device, options.repeats),
                    .per_run = static_cast<double>(options.batch_size),
                    .unit = "items"};
  };
  std::vector<BenchRow> rows = {row("forward", [&] { pass.forward(); })};
  if (options.uses_cuda_graphs) {
    rows.push_back(row("forward as a CUDA graph", [&] { pass.forward_as_graph(); }));
    rows.back().baseline = rows.front().name;
  }
  if (!options.no_backward) rows.push_back(row("forward and backward", [&] { pass.forward_and_backward(); }));
  return rows;
}

}  // namespace prefusion::tools

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/json_config.h"
#include "tools/bench_parts.h"
#include "unet/denoiser.h"

namespace prefusion::tools {
namespace {

std::shared_ptr<unet::Denoiser> open_denoiser(const BenchOptions& options) {
  const auto folder = unet::denoiser_folder(options.model);
  if (!options.random_weights) return unet::load_denoiser(folder, options.dtype, options.device);
  const auto config = folder / "config.json";
  auto denoiser = unet::make_denoiser(read_json(config).dump(), config.string());
  const at::NoGradGuard no_grad;
  at::manual_seed(options.seed);
  for (at::Tensor& parameter : denoiser->parameters()) parameter.normal_(0.0, 0.02);
  denoiser->to(options.device, options.dtype);
  return denoiser;
}

struct DenoiserInput {
  at::Tensor noisy_latents, timesteps;
  unet::Conditioning conditioning;
};

// The size of the latents in one direction, of a model that is asked for `size` pixels or its own.
int64_t latent_size(int64_t size_px, int64_t own, const unet::DenoiserInfo& info, const char* flag) {
  if (size_px == 0) return own;
  const int64_t multiple = 8 * info.size_multiple;
  check_usage(size_px % multiple == 0, flag, " ", size_px, ": this model takes multiples of ", multiple);
  return size_px / 8;
}

DenoiserInput random_input(const unet::Denoiser& denoiser, const BenchOptions& options) {
  const unet::DenoiserInfo& info = denoiser.info();
  const int64_t height = latent_size(options.height_px, info.sample_size, info, "--height");
  const int64_t width = latent_size(options.width_px, info.sample_width, info, "--width");
  const int64_t batch = options.batch_size;
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  DenoiserInput input;
  input.noisy_latents = at::randn({batch, info.in_channels, height, width}, like);
  input.timesteps = at::full({batch}, 500, like.dtype(info.is_flow ? at::kFloat : at::kLong));
  auto& told = input.conditioning;
  told.encoder_hidden_states = at::randn({batch, options.num_tokens, info.cross_attention_dim}, like);
  const int64_t pooled = info.pooled_dim > 0 ? info.pooled_dim : options.pooled_width;
  if (info.uses_pooled) told.pooled = at::randn({batch, pooled}, like);
  if (const int64_t ids = denoiser.num_time_ids(pooled); ids > 0) told.time_ids = at::ones({batch, ids}, like);
  if (info.uses_guidance) told.guidance = at::full({batch}, 3.5, like.dtype(at::kFloat));
  return input;
}

}  // namespace

std::vector<BenchRow> bench_denoiser(const BenchOptions& options) {
  const auto denoiser = open_denoiser(options);
  const DenoiserInput input = random_input(*denoiser, options);
  const std::string shape = " of " + std::to_string(options.batch_size) + " x " +
                            std::to_string(input.noisy_latents.size(2)) + " x " +
                            std::to_string(input.noisy_latents.size(3)) + " latents";
  const auto pass = [&] { return denoiser->forward(input.noisy_latents, input.timesteps, input.conditioning); };
  const auto forward = [&] {
    const at::NoGradGuard no_grad;
    pass();
  };
  const auto both = [&] {
    pass().to(at::kFloat).square().mean().backward();
    denoiser->zero_grad();
  };
  const auto rate = static_cast<double>(options.batch_size);
  for (at::Tensor& parameter : denoiser->parameters()) parameter.requires_grad_(false);
  std::vector<BenchRow> rows = {{.name = "forward" + shape,
                                 .timing = time_runs(forward, options.device, options.repeats),
                                 .per_run = rate,
                                 .unit = "items"}};
  for (at::Tensor& parameter : denoiser->parameters()) parameter.requires_grad_(true);
  rows.push_back({.name = "forward and backward" + shape,
                  .timing = time_runs(both, options.device, options.repeats),
                  .per_run = rate,
                  .unit = "items"});
  return rows;
}

}  // namespace prefusion::tools

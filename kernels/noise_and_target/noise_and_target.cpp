#include "kernels/noise_and_target/noise_and_target.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "noise_and_target";

void check_streams(const at::Tensor& streams, const char* op) {
  check_run(streams.defined() && streams.dim() == 1 && streams.scalar_type() == at::kLong, op,
            ": streams must be int64 [B]");
}

void check_scale(const at::Tensor& scale, const at::Tensor& latents, const char* name) {
  check_run(scale.defined() && scale.scalar_type() == at::kFloat, kName, ": ", name, " must be fp32");
  check_run(scale.dim() == 2 && scale.size(0) == latents.size(0) && scale.size(1) == latents.size(1), kName, ": ", name,
            " has shape ", shape_text(scale.sizes()), ", expected [", latents.size(0), ", ", latents.size(1), "]");
  check_run(scale.device() == latents.device(), kName, ": ", name, " and latents are on different devices");
}

void check_arguments(const at::Tensor& latents, const at::Tensor& streams, const at::Tensor& signal_scale,
                     const at::Tensor& noise_scale) {
  check_run(latents.defined() && latents.dim() == 5, kName, ": latents must be [B, k, C, H, W]",
            latents.defined() ? concat(", found ", shape_text(latents.sizes())) : std::string());
  const at::ScalarType dtype = latents.scalar_type();
  check_run(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf, kName,
            ": latents must be fp32, bf16 or fp16, found ", c10::toString(dtype));
  check_run(!(latents.requires_grad() && at::GradMode::is_enabled()), kName,
            ": latents are data; no gradient flows through this operation");
  check_streams(streams, kName);
  check_run(streams.size(0) == latents.size(0), kName, ": ", streams.size(0), " streams for ", latents.size(0),
            " groups");
  check_scale(signal_scale, latents, "signal_scale");
  check_scale(noise_scale, latents, "noise_scale");
}

}  // namespace

NoisyLatents noise_and_target(const at::Tensor& latents, const at::Tensor& streams, uint64_t seed,
                              const at::Tensor& signal_scale, const at::Tensor& noise_scale, PredictionType type) {
  check_arguments(latents, streams, signal_scale, noise_scale);
  const at::NoGradGuard no_grad;
  detail::NoiseAndTargetArgs args;
  args.latents = latents.contiguous();
  args.streams = streams.to(latents.device()).contiguous();
  args.signal_scale = signal_scale.contiguous();
  args.noise_scale = noise_scale.contiguous();
  args.noisy_latents = at::empty_like(args.latents);
  args.target = at::empty_like(args.latents, args.latents.options().dtype(at::kFloat));
  args.seed = seed;
  args.type = type;
  if (latents.numel() > 0) {
    PREFUSION_CALL_FOR(latents.device(), kName, noise_and_target, args);
  }
  return NoisyLatents{.noisy_latents = args.noisy_latents, .target = args.target};
}

at::Tensor group_noise(const at::Tensor& streams, uint64_t seed, at::IntArrayRef shape, int64_t k) {
  check_streams(streams, "group_noise");
  check_run(shape.size() == 3 && k >= 0, "group_noise: expected a shape [C, H, W] and k >= 0, found ",
            shape_text(shape), " and ", k);
  const int64_t num_groups = streams.size(0);
  at::Tensor noise = at::empty({num_groups, k, shape[0], shape[1], shape[2]}, streams.options().dtype(at::kFloat));
  if (noise.numel() == 0) return noise;
  at::Tensor flat = noise.view({num_groups, k, shape[0] * shape[1] * shape[2]});
  PREFUSION_CALL_FOR(streams.device(), "group_noise", group_noise, streams.contiguous(), seed, flat);
  return noise;
}

}  // namespace prefusion::kernels

#include "losses/online/diffusion_nft.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::losses {
namespace {

void check_batch(const ForwardBatch& batch) {
  check_run(batch.denoised.defined() && batch.denoised.dim() == 5 && batch.denoised.numel() > 0,
            "diffusion-nft: denoised must be a non-empty [B, k, C, H, W]");
  const auto check = [](const at::Tensor& tensor, at::IntArrayRef expected, const char* name) {
    check_run(tensor.defined() && tensor.sizes() == expected, "diffusion-nft: ", name, " has shape ",
              tensor.defined() ? shape_text(tensor.sizes()) : std::string("none"), ", expected ", shape_text(expected));
  };
  const at::IntArrayRef shape = batch.denoised.sizes();
  check(batch.denoised_old, shape, "denoised_old");
  check(batch.latents, shape, "latents");
  check(batch.advantage, shape.slice(0, 2), "advantage");
  if (batch.drift.defined()) check(batch.drift, shape.slice(0, 2), "drift");
}

// Mean squared error over mean absolute error, the latter a constant. [B, k]
at::Tensor normalised_error(const at::Tensor& denoised, const at::Tensor& latents) {
  const at::Tensor residual = (denoised - latents).flatten(2);
  return residual.square().mean(2) / residual.detach().abs().mean(2).clamp_min(1e-5);
}

}  // namespace

at::Tensor diffusion_nft_loss(const ForwardBatch& batch, const ObjectiveParams& params) {
  check_batch(batch);
  const double beta = params.kappa;
  const double clip = params.get("advantage_clip");
  const double kl_weight = params.get("kl_weight");
  const at::Tensor old = batch.denoised_old.detach();
  const at::Tensor latents = batch.latents.detach();
  const at::Tensor positive = normalised_error(beta * batch.denoised + (1 - beta) * old, latents);
  const at::Tensor negative = normalised_error((1 + beta) * old - beta * batch.denoised, latents);
  const at::Tensor optimality = batch.advantage.detach().clamp(-clip, clip) / (2 * clip) + 0.5;
  at::Tensor loss = clip / beta * (optimality * positive + (1 - optimality) * negative);
  if (kl_weight > 0) {
    check_run(batch.drift.defined(), "diffusion-nft: needs drift for kl_weight ", kl_weight, ", found none");
    loss = loss + kl_weight * batch.drift;
  }
  return loss.mean(1);
}

}  // namespace prefusion::losses

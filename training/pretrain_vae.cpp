#include "training/pretrain_vae.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "shapes/dataset.h"
#include "training/lr_schedule.h"
#include "training/optimizer.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {
namespace {

constexpr double kAbsoluteErrorWeight = 0.3;
constexpr double kKlWeight = 1e-6;

}  // namespace

void pretrain_vae(vae::AutoencoderKL& vae, const PretrainOptions& options, at::Device device) {
  AdamW optimizer(nn::named_tensors(vae), {.lr = options.vae_lr, .weight_decay = 0.0});
  Progress progress("vae", options.vae_steps, "step", options.progress);
  for (int64_t step = 0; step < options.vae_steps; ++step) {
    throw_if_interrupted();
    const at::Tensor pictures = shapes::scene_batch(options.seed, step, options.vae_batch_size).pixel_values.to(device);
    const auto posterior = vae.encode(pictures);
    const DrawKey key{options.seed, static_cast<uint64_t>(step), 0};
    const at::Tensor noise = philox_randn(posterior.mean.sizes(), key, RandomPurpose::kPosterior).to(device);
    const at::Tensor restored = vae.decode_unscaled(posterior.mean + posterior.std * noise);
    const at::Tensor difference = restored - pictures;
    const at::Tensor variance = posterior.std.square();
    const at::Tensor kl = 0.5 * (posterior.mean.square() + variance - 1.0 - posterior.logvar).sum({1, 2, 3}).mean();
    const at::Tensor loss =
        difference.square().mean() + kAbsoluteErrorWeight * difference.abs().mean() + kKlWeight * kl;
    loss.backward();
    optimizer.step(options.vae_lr * lr_factor(LrScheduleKind::kCosine, step, 50, options.vae_steps),
                   {.gradient_factor = clip_factor(optimizer.grad_norm(), options.max_grad_norm)});
    optimizer.zero_grad();
    if (step % options.log_every == 0 || step + 1 == options.vae_steps) {
      const double value = loss.item<double>();
      check_run(std::isfinite(value), "VAE training: the loss is not finite at step ", step);
      progress.update(step + 1, concat("loss ", value));
    }
  }
}

double measure_scaling_factor(vae::AutoencoderKL& vae, const PretrainOptions& options, at::Device device) {
  at::NoGradGuard no_grad;
  const auto scenes = shapes::scene_batch(options.seed + 1, 0, 256);
  return 1.0 / vae.encode(scenes.pixel_values.to(device)).mean.std().item<double>();
}

}  // namespace prefusion::training

#include "schedulers/flow_sde.h"

#include <ATen/ATen.h>

#include "schedulers/per_item.h"

namespace prefusion::schedulers {
namespace {

// The arguments of a step in one dtype; times are [N, 1, ...].
struct FlowStep {
  FlowStep(const at::Tensor& velocity, const at::Tensor& sample, const at::Tensor& times, const at::Tensor& next_times)
      : v(velocity.to(wide_type(velocity))),
        x(sample.to(v.scalar_type())),
        t(align_to(times, x).to(v.scalar_type())),
        dt(align_to(next_times, x).to(v.scalar_type()) - t) {}

  at::Tensor v, x, t, dt;
};

FlowSdeStep finish(const FlowStep& flow, const at::Tensor& mean, const at::Tensor& diffusion) {
  const at::IntArrayRef items = flow.x.sizes().slice(0, 1);
  return {.step = {.mean = mean, .std = (diffusion * (-flow.dt).sqrt()).reshape(items)},
          .diffusion = diffusion.reshape(items)};
}

}  // namespace

FlowSdeStep flow_grpo_step(const at::Tensor& velocity, const at::Tensor& sample, const at::Tensor& times,
                           const at::Tensor& next_times, double noise_level, double after_one) {
  const FlowStep flow(velocity, sample, times, next_times);
  const auto& [v, x, t, dt] = flow;
  const at::Tensor below_one = at::where(t == 1, at::full_like(t, after_one), t);
  const at::Tensor diffusion = noise_level * (t / (1 - below_one)).sqrt();
  const at::Tensor drift = diffusion.square() / (2 * t);
  return finish(flow, x * (1 + drift * dt) + v * (1 + drift * (1 - t)) * dt, diffusion);
}

FlowSdeStep dance_grpo_step(const at::Tensor& velocity, const at::Tensor& sample, const at::Tensor& times,
                            const at::Tensor& next_times, double eta) {
  const FlowStep flow(velocity, sample, times, next_times);
  const auto& [v, x, t, dt] = flow;
  const at::Tensor clean = x - t * v;
  const at::Tensor score = -(x - (1 - t) * clean) / t.square();
  return finish(flow, x + v * dt - 0.5 * eta * eta * score * dt, at::full_like(t, eta));
}

}  // namespace prefusion::schedulers

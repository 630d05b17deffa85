#include "losses/online/diffusion_nft.h"

#include <gtest/gtest.h>

#include "tests/losses/online/make_trajectories.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// Velocities of policy, sampling policy and reference for noisy samples of a flow model.
struct Velocities {
  at::Tensor policy, old, reference, noisy, latents, time;
  at::Tensor advantage;
};

Velocities make_velocities() {
  const auto normal = [](at::IntArrayRef shape, uint64_t item) {
    return philox_randn(shape, {.seed = 3, .item = item}, RandomPurpose::kOther).to(at::kDouble);
  };
  const std::vector<int64_t> shape = {2, 3, 2, 4, 4};
  Velocities v;
  v.latents = normal(shape, 0);
  const at::Tensor noise = normal(shape, 1);
  v.time = at::tensor({0.1, 0.5, 0.9, 0.3, 0.7, 1.0}, at::kDouble).view({2, 3, 1, 1, 1});
  v.noisy = (1 - v.time) * v.latents + v.time * noise;
  v.reference = noise - v.latents + 0.3 * normal(shape, 2);
  v.old = v.reference + 0.1 * normal(shape, 3);
  v.policy = v.old + 0.05 * normal(shape, 4);
  v.advantage = at::tensor({-7.0, -1.0, 0.0, 0.5, 2.0, 9.0}, at::kDouble).view({2, 3});
  return v;
}

ForwardBatch batch_of(const Velocities& v) {
  return {.denoised = v.noisy - v.time * v.policy,
          .denoised_old = v.noisy - v.time * v.old,
          .latents = v.latents,
          .advantage = v.advantage,
          .drift = (v.policy - v.reference).square().flatten(2).mean(2)};
}

double nft_loss(const ForwardBatch& batch, double beta, const std::string& args = "") {
  const OnlineObjective& objective = find_online("diffusion-nft");
  return std::get<ForwardLoss>(objective.group_loss)(batch, resolve_params(objective.info, args, beta, std::nullopt))
      .mean()
      .item<double>();
}

TEST(DiffusionNft, EqualsThePublicFormOnVelocities) {
  const Velocities v = make_velocities();
  for (const double beta : {1.0, 0.1}) {
    const auto mean_error = [&](const at::Tensor& velocity) {
      const at::Tensor residual = v.noisy - v.time * velocity - v.latents;
      const at::Tensor weight = residual.abs().mean({2, 3, 4}, /*keepdim=*/true).clamp_min(1e-5);
      return (residual.square() / weight).mean({2, 3, 4});
    };
    const at::Tensor r = ((v.advantage.clamp(-5, 5) / 5) / 2.0 + 0.5).clamp(0, 1);
    const at::Tensor positive = mean_error(beta * v.policy + (1 - beta) * v.old) / beta;
    const at::Tensor negative = mean_error((1 + beta) * v.old - beta * v.policy) / beta;
    const at::Tensor drift = (v.policy - v.reference).square().mean({2, 3, 4});
    const double expected = ((r * positive + (1 - r) * negative) * 5 + 1e-4 * drift).mean().item<double>();
    EXPECT_NEAR(nft_loss(batch_of(v), beta), expected, 1e-10) << beta;
  }
}

TEST(DiffusionNft, PullsTowardsGoodAndAwayFromBadSamples) {
  // Policy and sampling policy agree and miss by 1 everywhere: the gradient is that of 5 * (2 r - 1) * 2 * residual.
  for (const double advantage : {5.0, 0.0, -5.0}) {
    ForwardBatch batch;
    batch.latents = at::zeros({1, 1, 1, 2, 2}, at::kDouble);
    batch.denoised = at::ones_like(batch.latents).requires_grad_();
    batch.denoised_old = at::ones_like(batch.latents);
    batch.advantage = at::full({1, 1}, advantage, at::kDouble);
    const OnlineObjective& objective = find_online("diffusion-nft");
    std::get<ForwardLoss>(objective.group_loss)(batch, resolve_params(objective.info, "kl_weight=0", 0.1, {}))
        .sum()
        .backward();
    EXPECT_NEAR(batch.denoised.grad().sum().item<double>(), 10 * advantage / 5, 1e-9);
  }
}

TEST(DiffusionNft, StaysFiniteAtExactAndFarPredictions) {
  for (const double offset : {0.0, 1e-8, 50.0, 1e4}) {
    ForwardBatch batch = batch_of(make_velocities());
    batch.latents = batch.latents.to(at::kFloat);
    batch.denoised = (batch.latents + offset).requires_grad_();
    batch.denoised_old = batch.latents - offset;
    batch.drift = batch.drift.to(at::kFloat);
    const OnlineObjective& objective = find_online("diffusion-nft");
    const at::Tensor loss = std::get<ForwardLoss>(objective.group_loss)(batch, online_params("diffusion-nft")).mean();
    loss.backward();
    EXPECT_TRUE(loss.isfinite().item<bool>()) << offset;
    EXPECT_TRUE(batch.denoised.grad().isfinite().all().item<bool>()) << offset;
  }
}

TEST(DiffusionNft, RefusesBatchesThatDoNotFit) {
  const ForwardBatch good = batch_of(make_velocities());
  for (const auto member : {&ForwardBatch::denoised, &ForwardBatch::denoised_old, &ForwardBatch::latents,
                            &ForwardBatch::advantage, &ForwardBatch::drift}) {
    ForwardBatch bad = good;
    bad.*member = at::Tensor();
    EXPECT_THROW(nft_loss(bad, 1), Error);
    bad.*member = at::ones({2, 3, 1});
    EXPECT_THROW(nft_loss(bad, 1), Error);
  }
  ForwardBatch without_reference = good;
  without_reference.drift = at::Tensor();
  EXPECT_NO_THROW(nft_loss(without_reference, 1, "kl_weight=0"));
}

}  // namespace
}  // namespace prefusion::losses

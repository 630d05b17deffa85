#include "training/online/online_steps.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/support/tensor_near.h"
#include "tests/training/online/online_options.h"
#include "training/online/old_policy.h"
#include "training/online/online_options.h"
#include "training/policy.h"

namespace prefusion::training {
namespace {

using tests::near;

struct OnlineCase {
  std::string objective;
  bool is_flow = false;
};

class OnlineStepsTest : public testing::TestWithParam<OnlineCase> {
 protected:
  OnlineStepsTest() {
    const std::string& objective = GetParam().objective;
    options_ = tests::online_options(folder_, objective);
    if (GetParam().is_flow) options_.model = tests::flow_model(folder_);
    if (objective == "longalign") {
      options_.online = {.prompts = options_.online.prompts, .reward = "shapes-soft", .sampling_steps = 3};
      options_.objective_args = "gradient_every=2";
    }
    policy_ = make_policy(options_, at::kFloat, at::kCPU);
  }

  std::unique_ptr<StepSource> make_steps() {
    return make_online_steps(options_, policy_, *online_objective_of(options_), at::kFloat, at::kCPU);
  }

  // Loss and gradients of one micro-step.
  TensorMap differentiate(StepSource& steps, int64_t step) {
    for (auto& [name, weight] : policy_.trainable) weight.mutable_grad() = at::Tensor();
    const MicroStep micro = steps.next(step, /*share=*/1.0);
    TensorMap found{{"loss", micro.loss}};
    for (const auto& [name, weight] : policy_.trainable) {
      if (weight.grad().defined()) found[name] = weight.grad().clone();
    }
    double square = 0;
    for (const auto& [name, tensor] : found) square += name == "loss" ? 0.0 : tensor.square().sum().item<double>();
    EXPECT_TRUE(std::isfinite(square) && square > 0) << square;
    EXPECT_TRUE(micro.metrics.contains("reward"));
    EXPECT_FALSE(micro.ids.empty());
    return found;
  }

  tests::TempDir folder_;
  AlignOptions options_;
  Policy policy_;
};

TEST_P(OnlineStepsTest, GoOnFromACheckpointWithTheSameGradients) {
  const auto whole = make_steps();
  for (int64_t step = 1; step <= 3; ++step) differentiate(*whole, step);
  const Json state = whole->state();
  const TensorMap tensors = whole->tensors();
  const auto resumed = make_steps();
  resumed->restore(state, tensors, "here");
  for (int64_t step = 4; step <= 5; ++step) {
    const TensorMap expected = differentiate(*whole, step), found = differentiate(*resumed, step);
    ASSERT_EQ(found.size(), expected.size());
    ASSERT_GT(found.size(), 10u);
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(found.at(name), tensor)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Online, OnlineStepsTest,
                         testing::Values(OnlineCase{"ddpo"}, OnlineCase{"spo"}, OnlineCase{"diffusion-nft"},
                                         OnlineCase{"longalign"}, OnlineCase{"flow-grpo", true},
                                         OnlineCase{"grpo-guard", true}, OnlineCase{"diffusion-nft", true},
                                         OnlineCase{"longalign", true}, OnlineCase{"diffusion-dpo"}, OnlineCase{"kto"},
                                         OnlineCase{"rankdpo", true}),
                         [](const auto& info) {
                           std::string name = info.param.objective + (info.param.is_flow ? "_flow" : "");
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(OnlineSteps, SamplesHaveTheAskedResolution) {
  const tests::TempDir folder;
  AlignOptions options = tests::online_options(folder, "ddpo");
  options.resolution = 48;
  const Policy policy = make_policy(options, at::kFloat, at::kCPU);
  const auto make = [&] {
    return make_online_steps(options, policy, *online_objective_of(options), at::kFloat, at::kCPU);
  };
  const auto steps = make();
  steps->next(1, /*share=*/1.0);
  const at::Tensor latents = steps->tensors().at("latents");
  EXPECT_EQ(latents.sizes().slice(3), at::IntArrayRef({12, 12}));  // a quarter
  options.resolution = 36;
  EXPECT_THROW(make(), Error);  // of 8 pixels
}

TEST(OldPolicy, FollowsAtADistanceAndComesBack) {
  const tests::TempDir folder;
  const AlignOptions options = tests::online_options(folder, "diffusion-nft");
  Policy policy = make_policy(options, at::kFloat, at::kCPU);
  OldPolicy old(policy);
  at::Tensor weight = policy.trainable.front().tensor;
  const at::Tensor start = weight.detach().clone();
  {
    const at::NoGradGuard no_grad;
    weight.add_(1);
  }
  old.follow(0.75);
  const auto seen = [&] {
    at::Tensor inside;
    old.with_network([&](unet::Denoiser&) { inside = weight.detach().clone(); });
    return inside;
  };
  EXPECT_TRUE(near(seen(), start + 0.25, 1e-6));
  EXPECT_TRUE(at::equal(weight.detach(), start + 1));  // the policy's own are back
  const TensorMap state = old.state();
  OldPolicy other(policy);
  other.load_state(state, "here");
  at::Tensor inside;
  other.with_network([&](unet::Denoiser&) { inside = weight.detach().clone(); });
  EXPECT_TRUE(at::equal(inside, seen()));
  old.follow(1);
  EXPECT_TRUE(at::equal(inside, seen()));
  old.follow(0);
  EXPECT_TRUE(at::equal(seen(), start + 1));
  EXPECT_THROW(other.load_state({}, "here"), Error);
}

}  // namespace
}  // namespace prefusion::training

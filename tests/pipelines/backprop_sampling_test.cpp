#include "pipelines/backprop_sampling.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "pipelines/trajectory.h"
#include "tests/pipelines/trajectory_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::pipelines {
namespace {

using tests::near;

TEST(BackpropSamplingReference, GradientsEqualAutogradInPython) {
  for (const ReferenceRun& run : {ReferenceRun{"plain", 6, 0.0, {.scale = 7.5}, {1, 4}},
                                  ReferenceRun{"v", 5, 0.0, {.scale = 3.0, .rescale = 0.7}, {0, 2, 4}}}) {
    SCOPED_TRACE(run.model);
    TextToImage pipeline = load_reference_model(run.model);
    unet::Denoiser& denoiser = *pipeline.components().denoiser;
    const std::vector<KeyedRequest> requests = make_requests(2);
    const at::Tensor initial = keyed_noise(requests, 0, pipeline.latent_shape(pipeline.image_size({})));
    const TensorMap expected = run_trajectory_reference(run, requests, {{"initial", initial}});
    const BackpropOptions options{
        .num_inference_steps = run.steps, .guidance = run.guidance, .gradient_steps = run.gradient_steps};
    // Blocks may be recomputed within the call that is recomputed.
    for (const bool recomputes_blocks : {false, true}) {
      denoiser.set_gradient_checkpointing(recomputes_blocks);
      denoiser.zero_grad();
      const at::Tensor latents = sample_with_gradient(pipeline, requests, options);
      EXPECT_TRUE(near(latents, expected.at("latents").select(1, run.steps), 2e-4));
      (latents * initial).sum().backward();
      int compared = 0;
      for (const auto& [name, gradient] : expected) {
        if (!name.starts_with("grad.")) continue;
        EXPECT_TRUE(near(denoiser.named_parameters()[name.substr(5)].grad(), gradient, 1e-3)) << name;
        ++compared;
      }
      EXPECT_EQ(compared, 4);
    }
  }
}

TEST(BackpropSampling, SamplesTheDeterministicTrajectory) {
  TextToImage pipeline = load_reference_model("plain");
  const std::vector<KeyedRequest> requests = make_requests(2);
  const GuidanceOptions guidance{.scale = 4.0};
  const at::Tensor latents = sample_with_gradient(
      pipeline, requests, {.num_inference_steps = 4, .guidance = guidance, .gradient_steps = {0, 1, 2, 3}});
  const Trajectory trajectory =
      sample_trajectories(pipeline, requests, {.num_inference_steps = 4, .noise = 0.0, .guidance = guidance});
  EXPECT_TRUE(at::equal(latents.detach(), trajectory.latents.select(1, 4)));
}

TEST(BackpropSampling, RecordsNothingWithoutChosenSteps) {
  TextToImage pipeline = load_reference_model("plain");
  EXPECT_FALSE(sample_with_gradient(pipeline, make_requests(1), {.num_inference_steps = 2}).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(sample_with_gradient(pipeline, make_requests(1), {.num_inference_steps = 2, .gradient_steps = {1}})
                   .requires_grad());
}

TEST(BackpropSampling, GradientsReachTheWeightsThroughTheDecoder) {
  TextToImage pipeline = load_reference_model("plain");
  const PipelineComponents& parts = pipeline.components();
  for (at::Tensor& weight : parts.autoencoder->parameters()) weight.set_requires_grad(false);
  parts.autoencoder->set_gradient_checkpointing(true);
  const at::Tensor latents =
      sample_with_gradient(pipeline, make_requests(2), {.num_inference_steps = 4, .gradient_steps = {3}});
  parts.autoencoder->decode(latents).square().mean().backward();
  for (const auto& item : parts.denoiser->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
  }
  EXPECT_GT(parts.denoiser->named_parameters()["conv_out.weight"].grad().abs().max().item<float>(), 0);
  EXPECT_FALSE(parts.autoencoder->parameters().front().grad().defined());
}

TEST(BackpropSampling, DecodedPixelsHaveTheGradientOfFiniteDifferences) {
  TextToImage pipeline = load_reference_model("v", at::kDouble);
  vae::AutoencoderKL& autoencoder = *pipeline.components().autoencoder;
  at::Tensor latents = keyed_noise(make_requests(1), 0, {4, 8, 10}).to(at::kDouble).requires_grad_();
  const auto reward = [&](const at::Tensor& x) { return autoencoder.decode_unscaled(x).to(at::kDouble).sin().mean(); };
  reward(latents).backward();
  const at::Tensor direction = keyed_noise(make_requests(1), 1, {4, 8, 10}).to(at::kDouble);
  const at::NoGradGuard no_grad;
  const double step = 1e-3;  // pixels come out in fp32
  const double change =
      (reward(latents + step * direction) - reward(latents - step * direction)).item<double>() / (2 * step);
  const double expected = (latents.grad() * direction).sum().item<double>();
  EXPECT_NEAR(change, expected, 1e-2 * std::abs(expected));
}

TEST(EvenlySpacedSteps, StartAtARandomOffset) {
  std::set<int64_t> offsets;
  for (uint64_t draw = 0; draw < 100; ++draw) {
    const std::vector<int64_t> steps = evenly_spaced_steps(50, 10, {.seed = 3, .draw = draw});
    ASSERT_EQ(steps.size(), 5u);
    for (size_t i = 1; i < steps.size(); ++i) EXPECT_EQ(steps[i] - steps[i - 1], 10);
    offsets.insert(steps.front());
  }
  EXPECT_EQ(offsets.size(), 10u);
  EXPECT_EQ(*offsets.rbegin(), 9);
  EXPECT_EQ(evenly_spaced_steps(3, 1, {}), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_THROW(evenly_spaced_steps(3, 4, {}), Error);
  EXPECT_THROW(evenly_spaced_steps(3, 0, {}), Error);
}

TEST(BackpropSampling, RefusesStepsThatDoNotExist) {
  TextToImage pipeline = load_reference_model("plain");
  EXPECT_THROW(sample_with_gradient(pipeline, make_requests(1), {.num_inference_steps = 2, .gradient_steps = {2}}),
               Error);
}

}  // namespace
}  // namespace prefusion::pipelines

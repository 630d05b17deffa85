#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "pipelines/backprop_sampling.h"
#include "pipelines/trajectory.h"
#include "schedulers/scheduler.h"
#include "tests/pipelines/trajectory_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::pipelines {
namespace {

using tests::near;

// The network of a reference model taken for a flow model.
TextToImage load_flow_model(const std::string& settings, at::ScalarType dtype = at::kFloat) {
  PipelineComponents parts = load_reference_model("plain", dtype).components();
  parts.scheduler_config = schedulers::parse_scheduler_config(
      R"({"_class_name": "FlowMatchEulerDiscreteScheduler", )" + settings + "}", "test");
  return TextToImage(std::move(parts));
}

std::vector<TransitionIndex> all_items_at(const Trajectory& trajectory, int64_t step) {
  std::vector<TransitionIndex> indices;
  for (int64_t item = 0; item < trajectory.latents.size(0); ++item) indices.push_back({item, step});
  return indices;
}

TEST(FlowTrajectory, WithoutNoiseFollowsTheOdeOfTheModelsShift) {
  for (const char* settings : {R"("shift": 3.0)", R"("shift": 3.0, "use_dynamic_shifting": true)"}) {
    SCOPED_TRACE(settings);
    TextToImage pipeline = load_flow_model(settings);
    const auto requests = make_requests(2);
    const GuidanceOptions guidance{.scale = 4.0};
    const TrajectoryOptions options{
        .num_inference_steps = 4, .noise = 0, .guidance = guidance, .height_px = 72, .width_px = 40};
    const Trajectory found = sample_trajectories(pipeline, requests, options);
    EXPECT_EQ(found.is_stochastic, std::vector<bool>(4, false));

    const at::NoGradGuard no_grad;
    const ImageSize size{72, 40};
    const auto scheduler = pipeline.make_scheduler({.height_px = 72, .width_px = 40});
    scheduler->set_timesteps(4);
    at::Tensor latents = keyed_noise(requests, 0, pipeline.latent_shape(size));
    const GuidedConditioning conditioning = encode_requests(pipeline, requests, guidance, size);
    for (size_t i = 0; i < 4; ++i) {
      const at::Tensor told = at::full({2}, scheduler->timesteps()[i], at::kFloat);
      const at::Tensor velocity =
          predict_guided(*pipeline.components().denoiser, latents, told, conditioning, guidance);
      latents = scheduler->step(velocity, i, latents, {});
      EXPECT_TRUE(at::equal(found.latents.select(1, static_cast<int64_t>(i) + 1), latents)) << i;
    }
    const at::Tensor with_gradient = sample_with_gradient(
        pipeline, requests,
        {.num_inference_steps = 4, .guidance = guidance, .gradient_steps = {1, 3}, .height_px = 72, .width_px = 40});
    EXPECT_TRUE(at::equal(with_gradient.detach(), latents));
  }
}

TEST(FlowTrajectory, DynamicShiftIsThatOfThePicturesSize) {
  TextToImage pipeline = load_flow_model(R"("use_dynamic_shifting": true)");
  const auto second = [&](int64_t side) {
    const TrajectoryOptions options{.num_inference_steps = 4, .height_px = side, .width_px = side};
    return make_policy(pipeline, options).sampler->steps()[1].time;
  };
  EXPECT_LT(second(64), second(512));
}

TEST(FlowTrajectory, ReplayOfUnchangedWeightsIsExact) {
  TextToImage pipeline = load_flow_model(R"("shift": 3.0)");
  for (const auto sde : {schedulers::FlowSde::kFlowGrpo, schedulers::FlowSde::kDanceGrpo}) {
    const Trajectory trajectory = sample_trajectories(
        pipeline, make_requests(3), {.num_inference_steps = 4, .noise = 0.7, .flow_sde = sde, .keeps_means = true});
    EXPECT_EQ(trajectory.is_stochastic, (std::vector<bool>{true, true, true, false}));
    for (int64_t step = 0; step < 3; ++step) {
      const Transitions transitions = select_transitions(trajectory, all_items_at(trajectory, step));
      const ReplayedTransitions replayed = replay(*pipeline.components().denoiser, trajectory.policy, transitions);
      EXPECT_TRUE(replayed.log_probs.requires_grad());
      EXPECT_TRUE(at::equal(replayed.log_probs.detach(), trajectory.log_probs.select(1, step)));
      EXPECT_TRUE(at::equal(replayed.step.mean.detach(), trajectory.means.select(1, step)));
    }
    EXPECT_THROW(select_transitions(trajectory, all_items_at(trajectory, 3)), Error);
  }
}

TEST(FlowTrajectory, DoesNotDependOnTheBatch) {
  TextToImage pipeline = load_flow_model(R"("shift": 3.0)");
  const auto requests = make_requests(3);
  const TrajectoryOptions options{.num_inference_steps = 3, .noise = 0.7};
  const Trajectory together = sample_trajectories(pipeline, requests, options);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const Trajectory alone = sample_trajectories(pipeline, std::span(requests).subspan(i, 1), options);
    EXPECT_TRUE(near(alone.latents[0], together.latents[row], 1e-5));
    EXPECT_TRUE(near(alone.log_probs[0], together.log_probs[row], 1e-4));
  }
}

TEST(FlowTrajectory, LogProbIsThatOfTheDrawnNoise) {
  TextToImage pipeline = load_flow_model(R"("shift": 3.0)");
  const auto requests = make_requests(2);
  const Trajectory trajectory = sample_trajectories(pipeline, requests, {.num_inference_steps = 4, .noise = 0.9});
  const at::IntArrayRef shape = trajectory.latents.sizes().slice(2);
  for (int64_t step = 0; step < 3; ++step) {
    const schedulers::SamplerStep& taken = trajectory.steps[static_cast<size_t>(step)];
    const double level = taken.time == 1 ? taken.next_time : taken.time;
    const double std = 0.9 * std::sqrt(taken.time / (1 - level) * (taken.time - taken.next_time));
    const at::Tensor noise = keyed_noise(requests, candidate_draw(step, 0), shape).to(at::kDouble);
    const at::Tensor expected =
        -noise.square().mean({1, 2, 3}) / 2 - std::log(std) - 0.5 * std::log(2 * std::numbers::pi);
    EXPECT_TRUE(near(trajectory.log_probs.select(1, step), expected, 1e-3)) << step;
  }
}

TEST(FlowTrajectory, BranchesIntoCandidates) {
  TextToImage pipeline = load_flow_model(R"("shift": 3.0)");
  TrajectoryOptions options{.num_inference_steps = 4, .noise = 0.7, .num_candidates = 2};
  std::vector<int64_t> counts;
  options.on_step = [&](const TrajectoryPoint& point) {
    counts.push_back(point.candidates.size(1));
    return true;
  };
  sample_trajectories(pipeline, make_requests(2), options);
  EXPECT_EQ(counts, (std::vector<int64_t>{2, 2, 2, 1}));
}

TEST(FlowTrajectory, ConstantNoiseIsForFlowModels) {
  TextToImage pipeline = load_reference_model("plain");
  EXPECT_THROW(sample_trajectories(pipeline, make_requests(1),
                                   {.num_inference_steps = 2, .flow_sde = schedulers::FlowSde::kDanceGrpo}),
               Error);
}

}  // namespace
}  // namespace prefusion::pipelines

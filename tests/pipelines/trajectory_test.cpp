#include "pipelines/trajectory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "tests/pipelines/trajectory_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::pipelines {
namespace {

using tests::near;

std::vector<TransitionIndex> all_items_at(const Trajectory& trajectory, int64_t step) {
  std::vector<TransitionIndex> indices;
  for (int64_t item = 0; item < trajectory.latents.size(0); ++item) indices.push_back({item, step});
  return indices;
}

class TrajectoryReference : public testing::TestWithParam<ReferenceRun> {};

TEST_P(TrajectoryReference, LatentsAndLogProbsEqualDiffusers) {
  const ReferenceRun& run = GetParam();
  TextToImage pipeline = load_reference_model(run.model);
  const std::vector<KeyedRequest> requests = make_requests(2);
  const std::vector<int64_t> shape = pipeline.latent_shape(pipeline.image_size({}));
  std::vector<at::Tensor> step_noise;
  for (int64_t i = 0; i < run.steps; ++i) step_noise.push_back(keyed_noise(requests, candidate_draw(i, 0), shape));
  const TensorMap expected = run_trajectory_reference(
      run, requests, {{"initial", keyed_noise(requests, 0, shape)}, {"step", at::stack(step_noise, 1)}});

  const Trajectory found = sample_trajectories(
      pipeline, requests, {.num_inference_steps = run.steps, .noise = run.eta, .guidance = run.guidance});
  EXPECT_TRUE(near(found.latents, expected.at("latents"), 2e-4));
  if (run.eta > 0) {
    EXPECT_TRUE(near(found.log_probs, expected.at("log_probs"), 1e-3));
  } else {
    EXPECT_TRUE(at::equal(found.log_probs, at::zeros({2, run.steps})));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TrajectoryReference,
                         testing::Values(ReferenceRun{"plain", 5, 1.0, {.scale = 5.0}, {}},
                                         ReferenceRun{"plain", 4, 0.0, {.scale = 7.5}, {}},
                                         ReferenceRun{"v", 6, 0.7, {.scale = 3.0, .rescale = 0.7}, {}}),
                         [](const auto& run) { return run.param.model + std::to_string(run.param.steps); });

TEST(Trajectory, DoesNotDependOnTheBatch) {
  TextToImage pipeline = load_reference_model("plain");
  const std::vector<KeyedRequest> requests = make_requests(3);
  const TrajectoryOptions options{.num_inference_steps = 3};
  const Trajectory together = sample_trajectories(pipeline, requests, options);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const Trajectory alone = sample_trajectories(pipeline, std::span(requests).subspan(i, 1), options);
    EXPECT_TRUE(at::equal(alone.latents[0][0], together.latents[row][0]));
    EXPECT_TRUE(near(alone.latents[0], together.latents[row], 1e-5));
    EXPECT_TRUE(near(alone.log_probs[0], together.log_probs[row], 1e-4));
  }
  std::vector<KeyedRequest> redrawn = requests;
  redrawn[0].key.draw += 1;
  EXPECT_FALSE(near(sample_trajectories(pipeline, redrawn, options).latents[0], together.latents[0], 0.1));
}

TEST(Trajectory, ReplayOfUnchangedWeightsIsExact) {
  for (const auto& [dtype, keeps_fp32] : {std::pair(at::kFloat, true), std::pair(at::kBFloat16, false)}) {
    SCOPED_TRACE(c10::toString(dtype));
    TextToImage pipeline = load_reference_model("plain", dtype);
    const Trajectory trajectory =
        sample_trajectories(pipeline, make_requests(3), {.num_inference_steps = 4, .keeps_fp32 = keeps_fp32});
    EXPECT_EQ(trajectory.latents.scalar_type(), dtype);
    unet::Denoiser& denoiser = *pipeline.components().denoiser;
    for (int64_t step = 0; step < 4; ++step) {
      const Transitions transitions = select_transitions(trajectory, all_items_at(trajectory, step));
      const ReplayedTransitions replayed = replay(denoiser, trajectory.policy, transitions);
      EXPECT_TRUE(replayed.log_probs.requires_grad());
      EXPECT_EQ(replayed.log_probs.scalar_type(), at::kFloat);
      EXPECT_TRUE(at::equal(replayed.log_probs.detach(), trajectory.log_probs.select(1, step)));
    }
  }
}

TEST(Trajectory, ReplaysAnyItemsAndStepsTogether) {
  TextToImage pipeline = load_reference_model("v");
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(3), {.num_inference_steps = 4});
  const std::vector<TransitionIndex> indices = {{2, 0}, {0, 3}, {1, 1}, {2, 2}, {0, 0}};
  const at::NoGradGuard no_grad;
  const ReplayedTransitions replayed =
      replay(*pipeline.components().denoiser, trajectory.policy, select_transitions(trajectory, indices));
  for (size_t i = 0; i < indices.size(); ++i) {
    const float expected = trajectory.log_probs[indices[i].item][indices[i].step].item<float>();
    EXPECT_NEAR(replayed.log_probs[static_cast<int64_t>(i)].item<float>(), expected, 1e-4 * std::abs(expected));
  }
}

TEST(Trajectory, ReplayNoticesGuidanceAndPrompt) {
  TextToImage pipeline = load_reference_model("plain");
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(2), {.num_inference_steps = 3});
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  const at::NoGradGuard no_grad;
  Transitions transitions = select_transitions(trajectory, all_items_at(trajectory, 1));
  SamplingPolicy unguided = trajectory.policy;
  unguided.guidance.scale = 1.0;
  EXPECT_FALSE(near(replay(denoiser, unguided, transitions).log_probs, trajectory.log_probs.select(1, 1), 1e-3));
  transitions.conditioning = select_rows(trajectory.conditioning, at::tensor({1, 0}, at::kLong));
  EXPECT_FALSE(
      near(replay(denoiser, trajectory.policy, transitions).log_probs, trajectory.log_probs.select(1, 1), 1e-3));
}

TEST(Trajectory, ReplayGradientEqualsFiniteDifferences) {
  TextToImage pipeline = load_reference_model("plain", at::kDouble);
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(2), {.num_inference_steps = 3});
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  const Transitions transitions = select_transitions(trajectory, std::vector<TransitionIndex>{{0, 0}, {1, 1}, {0, 2}});
  const auto log_prob = [&] { return replay(denoiser, trajectory.policy, transitions).log_probs.sum(); };
  log_prob().backward();
  for (const char* name : {"conv_in.weight", "mid_block.resnets.0.conv1.weight", "conv_out.bias"}) {
    at::Tensor weight = denoiser.named_parameters()[name];
    const at::Tensor direction = philox_randn(weight.sizes(), {.seed = 1}, RandomPurpose::kOther).to(at::kDouble);
    const double expected = (weight.grad() * direction).sum().item<double>();
    const at::NoGradGuard no_grad;
    const double step = 1e-6;
    weight.add_(direction, step);
    const double above = log_prob().item<double>();
    weight.sub_(direction, 2 * step);
    const double below = log_prob().item<double>();
    weight.add_(direction, step);
    EXPECT_NEAR((above - below) / (2 * step), expected, 1e-4 * std::abs(expected)) << name;
  }
}

TEST(Trajectory, ReplayInPiecesEqualsReplayWithItsGradients) {
  TextToImage pipeline = load_reference_model("plain", at::kDouble);
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(3), {.num_inference_steps = 4});
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  std::vector<TransitionIndex> indices;
  for (int64_t item = 0; item < 3; ++item) {
    for (int64_t step = 0; step < 4; ++step) indices.push_back({item, step});
  }
  const Transitions transitions = select_transitions(trajectory, indices);
  // A loss that is no sum over decisions, of values and of means.
  const auto gradients = [&](const ReplayedTransitions& replayed) {
    denoiser.zero_grad();
    (replayed.log_probs.view({3, 4}).sum(1).square().sum() + replayed.step.mean.square().mean().exp()).backward();
    TensorMap found;
    for (const auto& item : denoiser.named_parameters()) found[item.key()] = item.value().grad().clone();
    return found;
  };
  const ReplayedTransitions whole = replay(denoiser, trajectory.policy, transitions);
  const TensorMap expected = gradients(whole);
  for (const int64_t rows_at_once : {1, 5, 12, 100}) {
    SCOPED_TRACE(rows_at_once);
    const ReplayedTransitions found = replay_in_pieces(denoiser, trajectory.policy, transitions, rows_at_once);
    EXPECT_TRUE(near(found.log_probs.detach(), whole.log_probs.detach(), 1e-10));
    EXPECT_TRUE(near(found.step.mean.detach(), whole.step.mean.detach(), 1e-10));
    EXPECT_TRUE(at::equal(found.step.std, whole.step.std));
    const TensorMap gradient = gradients(found);
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(near(gradient.at(name), tensor, 1e-9)) << name;
  }
  EXPECT_THROW(replay_in_pieces(denoiser, trajectory.policy, transitions, 0), Error);
}

TEST(Trajectory, ReplaysSeveralDrawsFromOneState) {
  TextToImage pipeline = load_reference_model("plain");
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(2), {.num_inference_steps = 3});
  unet::Denoiser& denoiser = *pipeline.components().denoiser;
  Transitions transitions = select_transitions(trajectory, all_items_at(trajectory, 1));
  const at::NoGradGuard no_grad;
  const at::Tensor first = replay(denoiser, trajectory.policy, transitions).log_probs;
  const at::Tensor draw = transitions.next;
  transitions.next = draw + 0.1;
  const at::Tensor second = replay(denoiser, trajectory.policy, transitions).log_probs;
  transitions.next = at::stack({draw, draw + 0.1}, 1);
  EXPECT_TRUE(at::equal(replay(denoiser, trajectory.policy, transitions).log_probs, at::stack({first, second}, 1)));
}

TEST(Trajectory, ReplayedStepsOfEqualNetworksHaveNoKl) {
  TextToImage pipeline = load_reference_model("plain");
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(2), {.num_inference_steps = 3});
  const Transitions transitions = select_transitions(trajectory, all_items_at(trajectory, 0));
  const at::NoGradGuard no_grad;
  const auto step = [&] { return replay(*pipeline.components().denoiser, trajectory.policy, transitions).step; };
  const schedulers::GaussianStep reference = step();
  EXPECT_TRUE(at::equal(schedulers::mean_kl(step().mean, reference.mean, reference.std), at::zeros({2})));
  for (at::Tensor& weight : pipeline.components().denoiser->parameters()) weight.mul_(1.01);
  EXPECT_GT(schedulers::mean_kl(step().mean, reference.mean, reference.std).min().item<float>(), 0);
}

TEST(Trajectory, IsDeterministicOutsideTheWindow) {
  TextToImage pipeline = load_reference_model("plain");
  const TrajectoryOptions options{.num_inference_steps = 5, .stochastic_steps = {.first = 1, .count = 2}};
  const Trajectory trajectory = sample_trajectories(pipeline, make_requests(2), options);
  EXPECT_EQ(trajectory.is_stochastic, (std::vector<bool>{false, true, true, false, false}));
  EXPECT_TRUE(at::equal(trajectory.log_probs != 0, (at::tensor({0, 1, 1, 0, 0}) == 1).expand({2, 5})));
  // Inside, the draws are those of a trajectory that is random everywhere.
  const Trajectory other = sample_trajectories(pipeline, make_requests(2), {.num_inference_steps = 5});
  EXPECT_FALSE(near(other.latents.select(1, 1), trajectory.latents.select(1, 1), 1e-3));
  // Outside, steps are those of deterministic DDIM from the same latents.
  const at::NoGradGuard no_grad;
  const schedulers::SamplerStep& step = trajectory.steps[3];
  const schedulers::GaussianStep expected = trajectory.policy.step(
      *pipeline.components().denoiser, trajectory.latents.select(1, 3), at::full({2}, step.time, at::kLong),
      at::full({2}, step.next_time, at::kLong), trajectory.conditioning, /*step_noise=*/0);
  EXPECT_TRUE(at::equal(trajectory.latents.select(1, 4), expected.mean));
  EXPECT_THROW(select_transitions(trajectory, all_items_at(trajectory, 3)), Error);
  EXPECT_NO_THROW(select_transitions(trajectory, all_items_at(trajectory, 2)));
}

TEST(Trajectory, GoesOnFromARandomCandidate) {
  TextToImage pipeline = load_reference_model("plain");
  const std::vector<KeyedRequest> requests = make_requests(4);
  TrajectoryOptions options{.num_inference_steps = 5, .num_candidates = 3, .candidate_steps = {.first = 2}};
  std::vector<at::Tensor> candidates, log_probs, chosen;
  options.on_step = [&](const TrajectoryPoint& point) {
    EXPECT_EQ(point.candidates.size(1), point.index < 2 ? 1 : 3);
    EXPECT_EQ(point.count, 5);
    candidates.push_back(point.candidates);
    log_probs.push_back(point.log_probs);
    chosen.push_back(point.chosen);
    return true;
  };
  const Trajectory trajectory = sample_trajectories(pipeline, requests, options);
  std::set<int64_t> choices;
  for (int64_t step = 2; step < 5; ++step) {
    const auto s = static_cast<size_t>(step);
    for (int64_t item = 0; item < 4; ++item) {
      const auto choice = chosen[s][item].item<int64_t>();
      choices.insert(choice);
      EXPECT_TRUE(at::equal(trajectory.latents[item][step + 1], candidates[s][item][choice]));
      EXPECT_EQ(trajectory.log_probs[item][step].item<float>(), log_probs[s][item][choice].item<float>());
      EXPECT_FALSE(near(candidates[s][item][0], candidates[s][item][1], 1e-3));
    }
  }
  EXPECT_EQ(choices, (std::set<int64_t>{0, 1, 2}));

  // Up to the first branching, and in candidate 0 there, nothing changed.
  const Trajectory straight = sample_trajectories(pipeline, requests, {.num_inference_steps = 5});
  EXPECT_TRUE(at::equal(straight.latents.slice(1, 0, 3), trajectory.latents.slice(1, 0, 3)));
  EXPECT_TRUE(at::equal(straight.latents.select(1, 3), candidates[2].select(1, 0)));

  // A candidate that was not taken is a decision as well.
  Transitions transitions = select_transitions(trajectory, all_items_at(trajectory, 4));
  transitions.next = candidates[4].select(1, 2);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(replay(*pipeline.components().denoiser, trajectory.policy, transitions).log_probs,
                        log_probs[4].select(1, 2)));
}

TEST(Trajectory, StopsWhenAsked) {
  TextToImage pipeline = load_reference_model("plain");
  TrajectoryOptions options{.num_inference_steps = 5};
  options.on_step = [](const TrajectoryPoint& point) { return point.index < 1; };
  const Trajectory stopped = sample_trajectories(pipeline, make_requests(2), options);
  EXPECT_EQ(stopped.steps.size(), 2u);
  EXPECT_EQ(stopped.latents.size(1), 3);
  EXPECT_EQ(stopped.log_probs.size(1), 2);
  const Trajectory whole = sample_trajectories(pipeline, make_requests(2), {.num_inference_steps = 5});
  EXPECT_TRUE(at::equal(stopped.latents, whole.latents.slice(1, 0, 3)));
  EXPECT_THROW(select_transitions(stopped, all_items_at(stopped, 2)), Error);
}

TEST(Trajectory, HasTheAskedSizeAndNoGradients) {
  TextToImage pipeline = load_reference_model("plain");
  const Trajectory trajectory =
      sample_trajectories(pipeline, make_requests(1), {.num_inference_steps = 2, .height_px = 72, .width_px = 40});
  EXPECT_EQ(trajectory.latents.sizes().vec(), (std::vector<int64_t>{1, 3, 4, 9, 5}));
  EXPECT_FALSE(trajectory.latents.requires_grad() || trajectory.log_probs.requires_grad());
}

TEST(Trajectory, RefusesOptionsThatMakeNoSense) {
  TextToImage pipeline = load_reference_model("plain");
  EXPECT_THROW(sample_trajectories(pipeline, make_requests(1), {.noise = 1.5}), Error);
  EXPECT_THROW(sample_trajectories(pipeline, make_requests(1), {.num_candidates = 0}), Error);
  EXPECT_THROW(sample_trajectories(pipeline, make_requests(1), {.num_inference_steps = 0}), Error);
  EXPECT_THROW(sample_trajectories(pipeline, {}, {}), Error);
}

}  // namespace
}  // namespace prefusion::pipelines

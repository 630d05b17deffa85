#include "training/online/step_pairs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/tensor_near.h"
#include "tests/training/online/online_options.h"
#include "training/policy.h"

namespace prefusion::training {
namespace {

using tests::near;

class StepPairTest : public testing::Test {
 protected:
  StepPairSampler make_sampler(const StepPairOptions& pairs) {
    return {options_, pairs, policy_.denoiser, at::kFloat, at::kCPU};
  }

  tests::TempDir folder_;
  AlignOptions options_ = tests::online_options(folder_, "spo");
  Policy policy_ = make_policy(options_, at::kFloat, at::kCPU);
};

// Every candidate of the steps, seen by recording the same trajectories.
std::vector<std::pair<double, at::Tensor>> candidates_of(StepPairSampler& sampler, const StepPairs& pairs,
                                                         const StepPairOptions& options) {
  std::vector<std::pair<double, at::Tensor>> recorded;
  pipelines::TrajectoryOptions trajectory = sampler.trajectory_options(pairs.round);
  trajectory.num_candidates = options.num_candidates;
  trajectory.candidate_steps = {.first = 1};
  trajectory.on_step = [&](const pipelines::TrajectoryPoint& point) {
    recorded.emplace_back(point.step.time, at::cat({point.latents.unsqueeze(1), point.candidates}, 1));
    return true;
  };
  pipelines::sample_trajectories(sampler.pipeline(), pairs.requests, trajectory);
  return recorded;
}

TEST_F(StepPairTest, AreTheBestAndWorstCandidatesByTheRewardOfTheirPredictedPictures) {
  const StepPairOptions which{.num_candidates = 3, .max_timestep = 400};  // the grid is 667, 334, 1
  StepPairSampler sampler = make_sampler(which);
  const StepPairs pairs = sampler.sample_round(0);
  const int64_t count = pairs.items.size(0);
  ASSERT_GT(count, 0);
  EXPECT_LE(count, 4 * 2);
  const auto recorded = candidates_of(sampler, pairs, which);
  const at::NoGradGuard no_grad;
  for (int64_t m = 0; m < count; ++m) {
    const auto item = pairs.items[m].item<int64_t>();
    const auto time = pairs.times[m].item<double>(), next = pairs.next_times[m].item<double>();
    EXPECT_LE(time, static_cast<double>(which.max_timestep));
    const auto step = std::ranges::find(recorded, time, &std::pair<double, at::Tensor>::first);
    ASSERT_NE(step, recorded.end());
    EXPECT_TRUE(at::equal(pairs.latents[m], step->second[item][0]));
    at::Tensor candidates = step->second[item].slice(0, 1);
    at::Tensor clean = candidates;
    if (next >= 0) {
      const at::Tensor timesteps = at::full({3}, next, at::kLong);
      const auto conditioning = pipelines::select_rows(pairs.conditioning, at::full({3}, item, at::kLong));
      const at::Tensor prediction =
          pipelines::predict_guided(*policy_.denoiser, candidates, timesteps, conditioning, pairs.policy.guidance);
      clean = pairs.policy.sampler->predict_clean(prediction, candidates, timesteps);
    }
    const std::vector<pipelines::KeyedRequest> requests(3, pairs.requests[item]);
    const at::Tensor reward = sampler.judge(clean, requests);
    // Pictures that are predicted in another batch may differ by a grey level.
    EXPECT_NEAR(pairs.reward[m][0].item<float>(), reward.max().item<float>(), 0.02);
    EXPECT_NEAR(pairs.reward[m][1].item<float>(), reward.min().item<float>(), 0.02);
    EXPECT_GT(pairs.reward[m][0].item<float>(), pairs.reward[m][1].item<float>());
    int64_t found = 0;
    for (int64_t k = 0; k < 3; ++k) {
      found += at::equal(pairs.next[m][0], candidates[k]) + at::equal(pairs.next[m][1], candidates[k]);
    }
    EXPECT_EQ(found, 2);
  }
}

TEST_F(StepPairTest, ReplayToTheLogProbabilitiesOfTheirSampling) {
  StepPairSampler sampler = make_sampler({.num_candidates = 2, .max_timestep = 1000});
  const StepPairs pairs = sampler.sample_round(1);
  ASSERT_GT(pairs.items.size(0), 0);
  const at::NoGradGuard no_grad;
  const pipelines::Transitions transitions{.latents = pairs.latents,
                                           .next = pairs.next,
                                           .times = pairs.times,
                                           .next_times = pairs.next_times,
                                           .conditioning = pipelines::select_rows(pairs.conditioning, pairs.items)};
  const auto replayed = pipelines::replay(*policy_.denoiser, pairs.policy, transitions);
  EXPECT_TRUE(near(replayed.log_probs, pairs.log_probs, 1e-4));
}

TEST_F(StepPairTest, LeaveOutSmallGaps) {
  StepPairSampler all = make_sampler({.num_candidates = 2, .max_timestep = 1000});
  const StepPairs pairs = all.sample_round(0);
  const at::Tensor gap = pairs.reward.select(1, 0) - pairs.reward.select(1, 1);
  const double middle = gap.median().item<double>();
  StepPairSampler some = make_sampler({.num_candidates = 2, .max_timestep = 1000, .min_gap = middle});
  const StepPairs fewer = some.sample_round(0);
  EXPECT_EQ(fewer.items.size(0), (gap.to(at::kDouble) > middle).sum().item<int64_t>());
  EXPECT_LT(fewer.items.size(0), pairs.items.size(0));
}

TEST_F(StepPairTest, ComeBackFromACheckpoint) {
  StepPairSampler sampler = make_sampler({.num_candidates = 2, .max_timestep = 1000});
  const StepPairs pairs = sampler.sample_round(2);
  TensorMap tensors = StepPairSampler::tensors(pairs);
  const StepPairs restored = sampler.restore(2, tensors, "here");
  EXPECT_TRUE(at::equal(restored.next, pairs.next) && at::equal(restored.log_probs, pairs.log_probs) &&
              at::equal(restored.items, pairs.items) && at::equal(restored.times, pairs.times));
  EXPECT_EQ(restored.requests.size(), pairs.requests.size());
  EXPECT_TRUE(
      at::equal(restored.conditioning.prompt.encoder_hidden_states, pairs.conditioning.prompt.encoder_hidden_states));
  tensors.erase("items");
  EXPECT_THROW(sampler.restore(2, tensors, "here"), Error);
}

}  // namespace
}  // namespace prefusion::training

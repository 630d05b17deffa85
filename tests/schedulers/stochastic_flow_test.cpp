#include "schedulers/stochastic_flow.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/rng.h"
#include "schedulers/scheduler.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

constexpr const char* kShifted = R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})";
constexpr const char* kDynamic =
    R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": true})";

SchedulerConfig config_of(const std::string& json) {
  return parse_scheduler_config(json, "test");
}

at::Tensor values(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, {.seed = 4, .item = item}, RandomPurpose::kOther);
}

at::Tensor filled(double time, int64_t count = 2) {
  return at::full({count}, time, at::kFloat);
}

TEST(StochasticFlow, WithoutNoiseIsTheEulerSampler) {
  for (const char* json : {kShifted, kDynamic}) {
    for (const bool is_linear : {false, true}) {  // as the FLUX pipelines have it
      SchedulerConfig config = config_of(json);
      config.sigmas_linear = is_linear;
      const auto scheduler = make_scheduler("flow-euler", config);
      scheduler->set_image_tokens(600);
      scheduler->set_timesteps(7);
      const StochasticFlow sampler(config, 600, 7);
      ASSERT_EQ(sampler.steps().size(), 7u);
      for (size_t i = 0; i < 7; ++i) {
        const SamplerStep& step = sampler.steps()[i];
        EXPECT_EQ(step.timestep, scheduler->timesteps()[i]);
        EXPECT_EQ(sampler.denoiser_timesteps(filled(step.time))[0].item<double>(), step.timestep);
        const at::Tensor sample = values({2, 4, 3, 3}, 2 * i), velocity = values({2, 4, 3, 3}, 2 * i + 1);
        const GaussianStep found =
            sampler.step(velocity, sample, filled(step.time), filled(step.next_time), /*noise=*/0);
        EXPECT_TRUE(at::equal(found.mean, scheduler->step(velocity, i, sample, {})));
        EXPECT_TRUE(at::equal(found.std, at::zeros({2})));
      }
    }
  }
}

TEST(StochasticFlow, LogProbEqualsAnIndependentComputation) {
  const double a = 0.7;
  const StochasticFlow sampler(config_of(kShifted), std::nullopt, 5);
  for (const SamplerStep& step : sampler.steps()) {
    if (!step.has_variance) continue;
    SCOPED_TRACE(step.time);
    const at::Tensor sample = values({2, 3, 4}, 0), velocity = values({2, 3, 4}, 1);
    const GaussianStep found = sampler.step(velocity, sample, filled(step.time), filled(step.next_time), a);
    const at::Tensor next = draw(found, values({2, 3, 4}, 2));
    const double t = step.time, dt = step.next_time - step.time;
    const double sigma = a * std::sqrt(t / (1 - (t == 1 ? sampler.steps()[1].time : t)));
    const double deviation = sigma * std::sqrt(-dt);
    const at::Tensor x = sample.to(at::kDouble), v = velocity.to(at::kDouble);
    // The score of x_t is -(x + (1 - t) v) / t, and the drift of the SDE v - sigma^2 / 2 times it.
    const at::Tensor score = -(x + (1 - t) * v) / t;
    const at::Tensor mean = x + (v - sigma * sigma / 2 * score) * dt;
    const at::Tensor density = -(next.to(at::kDouble) - mean).square() / (2 * deviation * deviation) -
                               std::log(deviation) - 0.5 * std::log(2 * std::numbers::pi);
    EXPECT_TRUE(near(found.mean, mean, 1e-5));
    EXPECT_NEAR(found.std[0].item<double>(), deviation, 1e-5 * deviation);
    EXPECT_TRUE(near(mean_log_prob(found, next), density.mean({1, 2}), 1e-3));
    EXPECT_NEAR(sampler.step_size(filled(step.time), filled(step.next_time))[0].item<double>(), -dt, 1e-6);
  }
}

TEST(StochasticFlow, LastStepIsNotRandom) {
  const StochasticFlow sampler(config_of(kShifted), std::nullopt, 4);
  std::vector<bool> found;
  for (const SamplerStep& step : sampler.steps()) found.push_back(step.has_variance);
  EXPECT_EQ(found, (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(sampler.steps().front().time, 1.0);
  EXPECT_TRUE(sampler.is_end(sampler.steps().back().next_time) && !sampler.is_end(sampler.steps().back().time));
  const GaussianStep alone = StochasticFlow(config_of(kShifted), std::nullopt, 1)
                                 .step(values({2, 3}, 0), values({2, 3}, 1), filled(1), filled(0), /*noise=*/0);
  EXPECT_TRUE(at::equal(alone.mean, values({2, 3}, 1) - values({2, 3}, 0)));
}

TEST(StochasticFlow, ConstantNoiseIsDanceGrpos) {
  const StochasticFlow sampler(config_of(kShifted), std::nullopt, 4, FlowSde::kDanceGrpo);
  const SamplerStep& step = sampler.steps()[1];
  const GaussianStep found =
      sampler.step(values({2, 3}, 0), values({2, 3}, 1), filled(step.time), filled(step.next_time), 0.3);
  EXPECT_NEAR(found.std[0].item<double>(), 0.3 * std::sqrt(step.time - step.next_time), 1e-6);
}

TEST(StochasticFlow, MixedTimesEqualItemsAlone) {
  const StochasticFlow sampler(config_of(kShifted), std::nullopt, 4);
  const at::Tensor prediction = values({3, 4, 2, 2}, 0), sample = values({3, 4, 2, 2}, 1);
  at::Tensor times = filled(0, 3), next_times = filled(0, 3);
  for (int64_t i = 0; i < 3; ++i) {
    times[i].fill_(sampler.steps()[static_cast<size_t>(2 - i)].time);
    next_times[i].fill_(sampler.steps()[static_cast<size_t>(2 - i)].next_time);
  }
  const GaussianStep all = sampler.step(prediction, sample, times, next_times, 0.7);
  for (int64_t i = 0; i < 3; ++i) {
    const auto row = [&](const at::Tensor& tensor) { return tensor.narrow(0, i, 1); };
    const GaussianStep alone = sampler.step(row(prediction), row(sample), row(times), row(next_times), 0.7);
    EXPECT_TRUE(at::equal(row(all.mean), alone.mean) && at::equal(row(all.std), alone.std));
  }
}

TEST(StochasticFlow, VelocityLeadsBackToCleanLatents) {
  const StochasticFlow sampler(config_of(kShifted), std::nullopt, 4);
  const at::Tensor latents = values({3, 4, 2, 2}, 0), noise = values({3, 4, 2, 2}, 1);
  const at::Tensor times = at::tensor({1.0, 0.4, 0.01}, at::kFloat);
  const at::Tensor noisy = sampler.add_noise(latents, noise, times);
  EXPECT_TRUE(at::equal(noisy[0], noise[0]));
  EXPECT_TRUE(near(noisy[1], 0.6 * latents[1] + 0.4 * noise[1], 1e-6));
  EXPECT_TRUE(near(sampler.predict_clean(noise - latents, noisy, times), latents, 1e-5));
}

TEST(StochasticFlow, LevelsNextToPureNoiseCountAsPureNoise) {
  SchedulerConfig config = config_of(kShifted);
  config.sigma_max = 1 - 1e-7;
  config.sigma_min = 0.01;
  config.use_karras_sigmas = true;
  const StochasticFlow sampler(config, std::nullopt, 4);
  const SamplerStep& step = sampler.steps().front();
  EXPECT_EQ(step.time, 1.0);
  EXPECT_LT(sampler.step(values({2, 3}, 0), values({2, 3}, 1), filled(step.time), filled(step.next_time), 0.7)
                .std.max()
                .item<double>(),
            1.0);
}

TEST(StochasticFlow, RefusesWhatAnSdeIsNot) {
  for (const char* key : {"invert_sigmas", "stochastic_sampling"}) {
    SchedulerConfig config =
        config_of(R"({"_class_name": "FlowMatchEulerDiscreteScheduler", ")" + std::string(key) + R"(": true})");
    try {
      StochasticFlow(config, std::nullopt, 4);
      FAIL() << key;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(StochasticFlow(config_of("{}"), std::nullopt, 4), Error);
  EXPECT_THROW(StochasticFlow(config_of(kShifted), std::nullopt, 0), Error);
  const StochasticFlow sampler(config_of(kShifted), std::nullopt, 4);
  EXPECT_THROW(sampler.check_noise(-0.1), Error);
  EXPECT_NO_THROW(sampler.check_noise(1.4));
}

}  // namespace
}  // namespace prefusion::schedulers

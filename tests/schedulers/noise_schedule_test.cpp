#include "schedulers/noise_schedule.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "tests/schedulers/scheduler_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

TEST(NoiseScheduleReference, EqualsDiffusers) {
  const auto& [cases, tensors] = tests::scheduler_reference();
  for (const Json& item : cases.at("noising")) {
    const std::string key = item["key"];
    SCOPED_TRACE(item["config"].get<std::string>());
    const NoiseSchedule schedule(parse_scheduler_config(item["config"].get<std::string>(), key));
    const TensorMap& all = tensors;
    const auto expected = [&](const char* what) { return all.at(key + "." + what); };
    EXPECT_TRUE(at::equal(schedule.alphas_cumprod(), expected("alphas_cumprod")));
    const at::Tensor timesteps = expected("timesteps");
    EXPECT_TRUE(near(schedule.add_noise(expected("latents"), expected("noise"), timesteps), expected("noisy"), 1e-6));
    EXPECT_TRUE(near(schedule.target(expected("latents"), expected("noise"), timesteps), expected("target"), 1e-6));
  }
}

TEST(NoiseSchedule, ScalesHaveTheShapeOfTimestepsAndUnitPower) {
  const NoiseSchedule schedule(parse_scheduler_config(R"({"beta_schedule": "scaled_linear"})", "test"));
  const at::Tensor timesteps = at::tensor({0, 10, 500, 999}, at::kLong).reshape({2, 2});
  const at::Tensor signal = schedule.signal_scale(timesteps);
  const at::Tensor noise = schedule.noise_scale(timesteps);
  EXPECT_EQ(signal.sizes(), timesteps.sizes());
  EXPECT_EQ(signal.scalar_type(), at::kFloat);
  EXPECT_TRUE(near(signal.square() + noise.square(), at::ones({2, 2}), 1e-6));
  EXPECT_TRUE(near(schedule.snr(timesteps), (signal / noise).square(), 1e-6));
}

TEST(NoiseSchedule, BroadcastsTimestepsOfGroups) {
  const NoiseSchedule schedule(parse_scheduler_config(R"({"prediction_type": "v_prediction"})", "test"));
  const at::Generator generator = make_torch_generator(0);
  const at::Tensor latents = at::randn({2, 3, 4, 5, 6}, generator);
  const at::Tensor noise = at::randn({2, 3, 4, 5, 6}, generator);
  const at::Tensor timesteps = at::arange(6, at::kLong).reshape({2, 3}) * 100;
  const at::Tensor grouped = schedule.add_noise(latents, noise, timesteps);
  const at::Tensor flat = schedule.add_noise(latents.flatten(0, 1), noise.flatten(0, 1), timesteps.flatten());
  EXPECT_TRUE(at::equal(grouped.flatten(0, 1), flat));
  const at::Tensor target = schedule.target(latents, noise, timesteps);
  const at::Tensor signal = schedule.signal_scale(timesteps).reshape({2, 3, 1, 1, 1});
  const at::Tensor deviation = schedule.noise_scale(timesteps).reshape({2, 3, 1, 1, 1});
  EXPECT_TRUE(near(signal * grouped - deviation * target, latents, 1e-5));
}

TEST(NoiseSchedule, KeepsHalfPrecisionLatents) {
  const NoiseSchedule schedule{SchedulerConfig{}};
  const at::Tensor latents = at::ones({1, 2, 2, 2}, at::kBFloat16);
  EXPECT_EQ(schedule.add_noise(latents, latents, at::zeros({1}, at::kLong)).scalar_type(), at::kBFloat16);
}

TEST(NoiseSchedule, ZeroTerminalSnrEndsInPureNoise) {
  const NoiseSchedule schedule(parse_scheduler_config(
      R"({"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": true, "_class_name": "EulerDiscreteScheduler"})",
      "test"));
  EXPECT_EQ(schedule.alphas_cumprod()[-1].item<float>(), 0.0f);
  EXPECT_EQ(schedule.snr(at::full({1}, 999, at::kLong)).item<float>(), 0.0f);
}

TEST(FlowNoiseScheduleReference, EqualsDiffusers) {
  const auto& [cases, tensors] = tests::scheduler_reference();
  ASSERT_FALSE(cases.at("flow_noising").empty());
  for (const Json& item : cases.at("flow_noising")) {
    const std::string key = item["key"];
    SCOPED_TRACE(item["config"].get<std::string>());
    const NoiseSchedule schedule(parse_scheduler_config(item["config"].get<std::string>(), key));
    const TensorMap& all = tensors;
    const auto expected = [&](const char* what) { return all.at(key + "." + what); };
    EXPECT_TRUE(at::equal(schedule.sigmas(), expected("sigmas")));
    const at::Tensor timesteps = expected("positions");
    EXPECT_TRUE(at::equal(schedule.denoiser_timesteps(timesteps), expected("timesteps")));
    EXPECT_TRUE(near(schedule.add_noise(expected("latents"), expected("noise"), timesteps), expected("noisy"), 1e-6));
    EXPECT_TRUE(near(schedule.target(expected("latents"), expected("noise"), timesteps), expected("target"), 1e-6));
  }
}

NoiseSchedule flow_schedule(const std::string& fields) {
  return NoiseSchedule(
      parse_scheduler_config(R"({"_class_name": "FlowMatchEulerDiscreteScheduler", )" + fields + "}", "test"));
}

TEST(FlowNoiseSchedule, IsTheShiftedLine) {
  const NoiseSchedule schedule = flow_schedule(R"("num_train_timesteps": 10, "shift": 3.0)");
  EXPECT_TRUE(schedule.is_flow());
  for (int64_t t = 0; t < 10; ++t) {
    const double line = static_cast<double>(t + 1) / 10;
    const double sigma = 3 * line / (1 + 2 * line);
    const at::Tensor timestep = at::full({1}, t, at::kLong);
    EXPECT_NEAR(schedule.noise_scale(timestep).item<double>(), sigma, 1e-6);
    EXPECT_NEAR(schedule.signal_scale(timestep).item<double>(), 1 - sigma, 1e-6);
    EXPECT_NEAR(schedule.snr(timestep).item<double>(), std::pow((1 - sigma) / sigma, 2),
                1e-4 * std::pow((1 - sigma) / sigma, 2) + 1e-12);
    EXPECT_NEAR(schedule.denoiser_timesteps(timestep).item<double>(), 10 * sigma, 1e-5);
  }
  EXPECT_EQ(schedule.signal_scale(at::full({1}, 9, at::kLong)).item<float>(), 0.0f);
}

TEST(FlowNoiseSchedule, ShiftOfThePicturesSizeIsForSampling) {
  EXPECT_TRUE(at::equal(flow_schedule(R"("shift": 3.0, "use_dynamic_shifting": true)").sigmas(),
                        flow_schedule(R"("shift": 1.0)").sigmas()));
}

TEST(FlowNoiseSchedule, FilesOfSolversHaveTheSame) {
  const NoiseSchedule solver(parse_scheduler_config(
      R"({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "flow_shift": 3.0,
          "prediction_type": "flow_prediction"})",
      "test"));
  EXPECT_TRUE(at::equal(solver.sigmas(), flow_schedule(R"("shift": 3.0)").sigmas()));
}

TEST(NoiseSchedule, RefusesHalfAFlow) {
  EXPECT_THROW(NoiseSchedule(parse_scheduler_config(R"({"prediction_type": "flow_prediction"})", "test")), Error);
  EXPECT_THROW(NoiseSchedule(parse_scheduler_config(R"({"use_flow_sigmas": true})", "test")), Error);
}

}  // namespace
}  // namespace prefusion::schedulers

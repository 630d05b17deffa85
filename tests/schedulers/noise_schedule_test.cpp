#include "schedulers/noise_schedule.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

TEST(NoiseScheduleReference, EqualsDiffusers) {
  const std::filesystem::path folder = tests::run_reference_script("make_schedulers.py");
  const Json cases = read_json(folder / "cases.json");
  const TensorMap tensors = read_safetensors(folder / "tensors.safetensors");
  for (const Json& item : cases["noising"]) {
    const std::string key = item["key"];
    SCOPED_TRACE(item["config"].get<std::string>());
    const NoiseSchedule schedule(parse_scheduler_config(item["config"].get<std::string>(), key));
    const auto expected = [&](const char* what) { return tensors.at(key + "." + what); };
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

TEST(NoiseSchedule, RefusesFlowPrediction) {
  EXPECT_THROW(NoiseSchedule(parse_scheduler_config(R"({"prediction_type": "flow_prediction"})", "test")), Error);
}

}  // namespace
}  // namespace prefusion::schedulers

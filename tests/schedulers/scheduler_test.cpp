#include "schedulers/scheduler.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "schedulers/sigma_schedule.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

class SchedulerReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::filesystem::path folder = tests::run_reference_script("make_schedulers.py");
    cases_ = new Json(read_json(folder / "cases.json"));
    tensors_ = new TensorMap(read_safetensors(folder / "tensors.safetensors"));
  }
  static void TearDownTestSuite() {
    delete cases_;
    delete tensors_;
  }

  inline static Json* cases_ = nullptr;
  inline static TensorMap* tensors_ = nullptr;
};

// The reference script's stand-in for a network.
at::Tensor dummy_denoiser(const at::Tensor& sample, double timestep) {
  const at::Tensor scale = at::scalar_tensor(0.002 * timestep + 0.1, at::kFloat);
  return (0.7 * sample + 0.1 * sample.flip({3})).tanh() * 0.8 + 0.05 * scale.sin();
}

NoiseSource noise_from(at::Generator generator) {
  return [generator](const at::Tensor& like) { return at::randn(like.sizes(), generator, like.scalar_type()); };
}

at::Tensor run_loop(Scheduler& scheduler, int64_t steps, bool is_learned) {
  const at::Generator generator = make_torch_generator(1234);
  scheduler.set_timesteps(steps);
  at::Tensor sample = at::randn({2, 4, 6, 5}, generator) * scheduler.init_noise_sigma();
  for (size_t i = 0; i < scheduler.timesteps().size(); ++i) {
    at::Tensor prediction = dummy_denoiser(scheduler.scale_model_input(sample, i), scheduler.timesteps()[i]);
    if (is_learned) prediction = at::cat({prediction, 0.5 * prediction}, 1);
    sample = scheduler.step(prediction, i, sample, noise_from(generator));
  }
  return sample;
}

TEST_F(SchedulerReference, SamplingEqualsDiffusers) {
  ASSERT_GT((*cases_)["sampling"].size(), 300u);
  for (const Json& item : (*cases_)["sampling"]) {
    const std::string key = item["key"];
    SCOPED_TRACE(concat(key, " ", item["scheduler"], " steps ", item["steps"], " config ", item["config"]));
    SchedulerConfig config = parse_scheduler_config(item["config"].get<std::string>(), key);
    config.eta = item["eta"];
    const auto scheduler = make_scheduler(item["scheduler"], config);
    const at::Tensor sample = run_loop(*scheduler, item["steps"], item["learned"]);
    const at::Tensor timesteps = at::tensor(at::ArrayRef<double>(scheduler->timesteps()), at::kDouble);
    EXPECT_TRUE(near(timesteps, tensors_->at(key + ".timesteps"), 1e-6));
    EXPECT_TRUE(near(sample, tensors_->at(key + ".sample"), 1e-5));
  }
}

TEST(Scheduler, RestartsFromSetTimesteps) {
  const SchedulerConfig config = parse_scheduler_config(R"({"beta_schedule": "scaled_linear"})", "test");
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    const auto scheduler = make_scheduler(entry.name, config);
    const at::Tensor first = run_loop(*scheduler, 6, false);
    EXPECT_TRUE(at::equal(run_loop(*scheduler, 6, false), first));
  }
}

TEST(SchedulerRegistry, KnowsNamesAliasesAndClasses) {
  SchedulerConfig config;
  config.class_name = "EulerDiscreteScheduler";
  EXPECT_EQ(scheduler_name("auto", config), "euler");
  EXPECT_EQ(scheduler_name("DPM++_2M_Karras", config), "dpm++-karras");
  EXPECT_EQ(scheduler_name("UniPCMultistepScheduler", config), "unipc");
  EXPECT_EQ(scheduler_name("euler_a", config), "euler-ancestral");
}

TEST(SchedulerRegistry, RefusesUnknownNamesAndMissingSamplers) {
  SchedulerConfig config;
  try {
    make_scheduler("ddimm", config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
    EXPECT_NE(std::string(error.what()).find("dpm++-sde-karras"), std::string::npos);
  }
  config.class_name = "LMSDiscreteScheduler";
  EXPECT_THROW(make_scheduler("auto", config), Error);
  EXPECT_NO_THROW(make_scheduler("euler", config));
}

TEST(Scheduler, RefusesStepCountsTheModelDoesNotHave) {
  SchedulerConfig config;
  config.num_train_timesteps = 10;
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    EXPECT_THROW(make_scheduler(entry.name, config)->set_timesteps(0), Error);
    EXPECT_THROW(make_scheduler(entry.name, config)->set_timesteps(11), Error);
  }
  config.steps_offset = 1;
  EXPECT_THROW(make_scheduler("ddim", config)->set_timesteps(10), Error);
  EXPECT_THROW(make_scheduler("pndm", config)->set_timesteps(3), Error);
}

TEST(Scheduler, DropsTheSurplusTrailingTimestep) {
  SchedulerConfig config;
  config.timestep_spacing = "trailing";
  const auto scheduler = make_scheduler("ddim", config);
  scheduler->set_timesteps(61);  // 1000 - 61 * (1000 / 61.0) is a little more than 0
  EXPECT_EQ(scheduler->timesteps().size(), 61u);
  EXPECT_GE(scheduler->timesteps().back(), 0);
}

TEST(Scheduler, KeepsTheDtypeOfThePrediction) {
  const SchedulerConfig config = parse_scheduler_config(R"({"beta_schedule": "scaled_linear"})", "test");
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    const auto scheduler = make_scheduler(entry.name, config);
    scheduler->set_timesteps(4);
    const at::Generator generator = make_torch_generator(1);
    at::Tensor sample = at::randn({1, 4, 2, 2}, generator).to(at::kBFloat16);
    for (size_t i = 0; i < scheduler->timesteps().size(); ++i) {
      const at::Tensor input = scheduler->scale_model_input(sample, i);
      ASSERT_EQ(input.scalar_type(), at::kBFloat16);
      sample = scheduler->step(input, i, sample, noise_from(generator));
      ASSERT_EQ(sample.scalar_type(), at::kBFloat16);
    }
  }
}

// Quantiles of Beta(0.6, 0.6), from its symmetry and from integrating the density.
TEST(SigmaTable, BetaSigmasAreQuantiles) {
  const std::vector<double> sigmas = SigmaTable::beta_quantiles(1.0, 0.0, 5);
  EXPECT_DOUBLE_EQ(sigmas[0], 1.0);
  EXPECT_NEAR(sigmas[2], 0.5, 1e-12);
  EXPECT_NEAR(sigmas[1] + sigmas[3], 1.0, 1e-12);
  EXPECT_DOUBLE_EQ(sigmas[4], 0.0);
  // With x = u^(5/3) the integral of x^-0.4 (1-x)^-0.4 loses its singularity at 0.
  const auto integral = [](double upper) {
    const int count = 200000;
    const double end = std::pow(upper, 0.6);
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += std::pow(1 - std::pow((i + 0.5) / count * end, 1 / 0.6), -0.4);
    return sum * end / count / 0.6;
  };
  EXPECT_NEAR(integral(sigmas[3]) / (2 * integral(0.5)), 0.25, 1e-8);
}

}  // namespace
}  // namespace prefusion::schedulers

#include "schedulers/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/sigma_schedule.h"
#include "tests/schedulers/scheduler_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

at::Tensor timesteps_of(const Scheduler& scheduler) {
  return at::tensor(at::ArrayRef<double>(scheduler.timesteps()), at::kDouble);
}

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

TEST(SchedulerReference, SamplingEqualsDiffusers) {
  ASSERT_GT(tests::scheduler_reference().cases.at("sampling").size(), 300u);
  for (const Json& item : tests::scheduler_reference().cases.at("sampling")) {
    const std::string key = item["key"];
    SCOPED_TRACE(concat(key, " ", item["scheduler"], " steps ", item["steps"], " config ", item["config"]));
    SchedulerConfig config = parse_scheduler_config(item["config"].get<std::string>(), key);
    config.eta = item["eta"];
    const auto scheduler = make_scheduler(item["scheduler"], config);
    const at::Tensor sample = run_loop(*scheduler, item["steps"], item["learned"]);
    EXPECT_TRUE(near(timesteps_of(*scheduler), tests::scheduler_reference().tensors.at(key + ".timesteps"), 1e-6));
    EXPECT_TRUE(near(sample, tests::scheduler_reference().tensors.at(key + ".sample"), 1e-5));
  }
}

TEST(SchedulerReference, FlowSamplingEqualsDiffusers) {
  ASSERT_GT(tests::scheduler_reference().cases.at("flows").size(), 200u);
  for (const Json& item : tests::scheduler_reference().cases.at("flows")) {
    const std::string key = item["key"];
    SCOPED_TRACE(concat(key, " ", item.dump()));
    SchedulerConfig config = parse_scheduler_config(item["config"].get<std::string>(), key);
    config.sigmas_linear = item["linear"];
    const auto scheduler = make_scheduler(item["scheduler"], config);
    if (item["tokens"] != 0) scheduler->set_image_tokens(item["tokens"]);
    const at::Tensor sample = run_loop(*scheduler, item["steps"], /*is_learned=*/false);
    EXPECT_TRUE(near(timesteps_of(*scheduler), tests::scheduler_reference().tensors.at(key + ".timesteps"), 1e-6));
    EXPECT_TRUE(near(sample, tests::scheduler_reference().tensors.at(key + ".sample"), 1e-5));
  }
}

// Steps taken as a LinearStep, where there is one, lead to the same samples; how many of these cases have one.
int64_t check_linear_steps(const std::string& list) {
  int64_t count = 0;
  for (const Json& item : tests::scheduler_reference().cases.at(list)) {
    const std::string key = item["key"];
    SCOPED_TRACE(concat(key, " ", item.dump()));
    SchedulerConfig config = parse_scheduler_config(item["config"].get<std::string>(), key);
    config.sigmas_linear = item.value("linear", false);
    config.eta = item.value("eta", 0.0);
    const auto scheduler = make_scheduler(item["scheduler"], config);
    if (item.value("tokens", 0) != 0) scheduler->set_image_tokens(item["tokens"]);
    scheduler->set_timesteps(item["steps"]);
    if (item.value("learned", false) || !scheduler->linear_step(0)) continue;
    ++count;
    at::Tensor sample = at::randn({2, 4, 6, 5}, make_torch_generator(1234)) * scheduler->init_noise_sigma();
    for (size_t i = 0; i < scheduler->timesteps().size(); ++i) {
      const auto step = scheduler->linear_step(i);
      EXPECT_TRUE(step.has_value());
      const at::Tensor prediction = dummy_denoiser(scheduler->scale_model_input(sample, i), scheduler->timesteps()[i]);
      sample = step->keep * sample + step->move * prediction;
    }
    EXPECT_TRUE(near(sample, tests::scheduler_reference().tensors.at(key + ".sample"), 2e-5));
  }
  return count;
}

TEST(SchedulerReference, LinearStepsLeadToTheSamplesOfDiffusers) {
  EXPECT_GT(check_linear_steps("sampling"), 40);
  EXPECT_GT(check_linear_steps("flows"), 40);
}

TEST(Scheduler, StepsThatRememberDrawOrLimitAreNotLinear) {
  const auto is_linear = [](const char* name, const std::string& fields, double eta = 0) {
    SchedulerConfig config = parse_scheduler_config("{" + fields + "}", "test");
    config.eta = eta;
    const auto scheduler = make_scheduler(name, config);
    scheduler->set_timesteps(5);
    return scheduler->linear_step(0).has_value();
  };
  const std::string plain = R"("clip_sample": false)";
  EXPECT_TRUE(is_linear("ddim", plain));
  EXPECT_FALSE(is_linear("ddim", plain, /*eta=*/0.5));
  EXPECT_FALSE(is_linear("ddim", R"("clip_sample": true)"));
  EXPECT_FALSE(is_linear("ddim", plain + R"(, "thresholding": true)"));
  EXPECT_TRUE(is_linear("euler", plain));
  const std::string flow = R"("_class_name": "FlowMatchEulerDiscreteScheduler")";
  EXPECT_TRUE(is_linear("flow-euler", flow));
  EXPECT_FALSE(is_linear("flow-euler", flow + R"(, "stochastic_sampling": true)"));
  for (const SchedulerEntry& entry : scheduler_entries()) {
    const std::string name = entry.name;
    const bool may_be = name == "ddim" || name == "euler" || name == "flow-euler";
    EXPECT_TRUE(may_be || !is_linear(entry.name, name.starts_with("flow") ? flow : "")) << name;
  }
}

TEST(SchedulerReference, SamplingFromAPictureEqualsDiffusers) {
  ASSERT_GT(tests::scheduler_reference().cases.at("cuts").size(), 50u);
  const at::Tensor clean = tests::scheduler_reference().tensors.at("cut.clean");
  for (const Json& item : tests::scheduler_reference().cases.at("cuts")) {
    const std::string key = item["key"];
    SCOPED_TRACE(concat(key, " ", item.dump()));
    const auto scheduler =
        make_scheduler(item["scheduler"], parse_scheduler_config(item["config"].get<std::string>(), key));
    scheduler->set_timesteps(item["steps"]);
    const size_t begin = item["skipped"].get<size_t>() * scheduler->calls_per_step();
    scheduler->begin_at(begin);
    const at::Generator generator = make_torch_generator(1234);
    const at::Tensor noise = at::randn({2, 4, 6, 5}, generator);
    at::Tensor sample = scheduler->add_noise(clean, noise, begin);
    std::vector<at::Tensor> levels;
    for (size_t i = begin; i < scheduler->timesteps().size(); ++i) {
      const at::Tensor input = scheduler->scale_model_input(sample, i);
      sample = scheduler->step(dummy_denoiser(input, scheduler->timesteps()[i]), i, sample, noise_from(generator));
      if (i + 1 < scheduler->timesteps().size()) levels.push_back(scheduler->add_noise(clean, noise, i + 1));
    }
    EXPECT_TRUE(near(sample, tests::scheduler_reference().tensors.at(key + ".sample"), 1e-5));
    const at::Tensor found = levels.empty() ? at::zeros({0}) : at::stack(levels);
    EXPECT_TRUE(near(found, tests::scheduler_reference().tensors.at(key + ".levels"), 1e-5));
  }
}

// A config that the sampler of that name reads.
SchedulerConfig config_for(const SchedulerEntry& entry) {
  const bool is_flow = std::string(entry.name).starts_with("flow");
  return parse_scheduler_config(is_flow ? R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})"
                                        : R"({"beta_schedule": "scaled_linear"})",
                                "test");
}

TEST(Scheduler, RestartsFromSetTimesteps) {
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    const auto scheduler = make_scheduler(entry.name, config_for(entry));
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
  EXPECT_EQ(scheduler_name("FlowMatchHeunDiscreteScheduler", config), "flow-heun");
  config.class_name = "LCMScheduler";
  EXPECT_EQ(scheduler_name("auto", config), "lcm");
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
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    SchedulerConfig config = config_for(entry);
    config.num_train_timesteps = config.original_inference_steps = 10;
    EXPECT_THROW(make_scheduler(entry.name, config)->set_timesteps(0), Error);
    EXPECT_THROW(make_scheduler(entry.name, config)->set_timesteps(11), Error);
  }
  SchedulerConfig config;
  config.num_train_timesteps = 10;
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
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    const auto scheduler = make_scheduler(entry.name, config_for(entry));
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

// The denoiser's input is made of known latents and noise; told what they are, it must be read as the latents.
TEST(Scheduler, InputScalesRecoverTheLatents) {
  const at::Generator generator = make_torch_generator(3);
  const at::Tensor clean = at::randn({1, 4, 3, 3}, generator);
  const at::Tensor noise = at::randn({1, 4, 3, 3}, generator);
  for (const SchedulerEntry& entry : scheduler_entries()) {
    SCOPED_TRACE(entry.name);
    const auto scheduler = make_scheduler(entry.name, config_for(entry));
    scheduler->set_timesteps(5);
    for (size_t i = 0; i < scheduler->timesteps().size(); ++i) {
      const InputScales scales = scheduler->input_scales(i);
      const bool is_flow = scheduler->prediction_type() == PredictionType::kFlow;
      EXPECT_NEAR(is_flow ? scales.signal + scales.noise : std::hypot(scales.signal, scales.noise), 1, 1e-6);
      const at::Tensor prediction = is_flow ? noise - clean : noise;
      const at::Tensor input = scales.signal * clean + scales.noise * noise;
      const auto scale = [](double value) { return at::scalar_tensor(value, at::kFloat); };
      const auto found =
          split_prediction(scheduler->prediction_type(), prediction, input, scale(scales.signal), scale(scales.noise));
      EXPECT_TRUE(near(found.clean, clean, 1e-4));
      EXPECT_TRUE(near(found.noise, noise, 1e-4));
    }
  }
}

// From pure noise along its own velocity a flow model's samplers arrive at the latents, and every call's input is the
// mixture its scales say.
TEST(FlowScheduler, FollowsAStraightPath) {
  const at::Generator generator = make_torch_generator(3);
  const at::Tensor clean = at::randn({1, 4, 3, 3}, generator);
  const at::Tensor noise = at::randn({1, 4, 3, 3}, generator);
  for (const char* name : {"flow-euler", "flow-heun"}) {
    for (const char* extra : {"", R"(, "invert_sigmas": true)"}) {
      if (std::string(name) == "flow-heun" && *extra != 0) continue;
      SCOPED_TRACE(concat(name, extra));
      const auto scheduler = make_scheduler(
          name, parse_scheduler_config(
                    concat(R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0)", extra, "}"), "test"));
      scheduler->set_timesteps(5);
      at::Tensor sample = noise;
      for (size_t i = 0; i < scheduler->timesteps().size(); ++i) {
        const at::Tensor velocity = *extra == 0 ? noise - clean : clean - noise;
        const InputScales scales = scheduler->input_scales(i);
        EXPECT_TRUE(near(sample, scales.signal * clean + std::abs(scales.noise) * noise, 1e-5));
        EXPECT_TRUE(near(sample - scales.noise * velocity, clean, 1e-5));
        sample = scheduler->step(velocity, i, sample, {});
      }
      EXPECT_TRUE(near(sample, clean, 1e-5));
    }
  }
}

TEST(FlowScheduler, DynamicShiftNeedsTheNumberOfTokens) {
  const auto scheduler = make_scheduler(
      "auto", parse_scheduler_config(
                  R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true})", "test"));
  EXPECT_THROW(scheduler->set_timesteps(4), Error);
  scheduler->set_image_tokens(1024);
  EXPECT_NO_THROW(scheduler->set_timesteps(4));
}

TEST(FlowScheduler, NothingToStretchInOneStep) {
  const auto scheduler = make_scheduler(
      "auto",
      parse_scheduler_config(R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1})", "test"));
  EXPECT_THROW(scheduler->set_timesteps(1), Error);
  EXPECT_NO_THROW(scheduler->set_timesteps(2));
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

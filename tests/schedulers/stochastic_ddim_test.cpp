#include "schedulers/stochastic_ddim.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/scheduler.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

constexpr const char* kStableDiffusion =
    R"({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": false,
        "set_alpha_to_one": false, "steps_offset": 1})";

SchedulerConfig config_of(const std::string& json) {
  return parse_scheduler_config(json, "test");
}

at::Tensor values(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, {.seed = 8, .item = item}, RandomPurpose::kOther);
}

at::Tensor longs(const std::vector<int64_t>& list) {
  return at::tensor(list, at::kLong);
}

struct StepTimesteps {
  explicit StepTimesteps(const std::vector<DdimStep>& steps) {
    std::vector<int64_t> timesteps, previous;
    for (const DdimStep& step : steps) {
      timesteps.push_back(step.timestep);
      previous.push_back(step.previous_timestep);
    }
    now = longs(timesteps);
    before = longs(previous);
  }
  at::Tensor now, before;
};

TEST(StochasticDdimReference, EveryStepEqualsDiffusers) {
  const std::filesystem::path folder = tests::run_reference_script("make_ddim_steps.py");
  const TensorMap tensors = read_safetensors(folder / "tensors.safetensors");
  const Json cases = read_json(folder / "cases.json")["steps"];
  ASSERT_EQ(cases.size(), 9u);
  for (const Json& item : cases) {
    const std::string key = item["key"];
    SCOPED_TRACE(item.dump());
    const auto expected = [&](const char* what) { return tensors.at(key + "." + what); };
    const StochasticDdim sampler(config_of(item["config"]));
    const StepTimesteps steps(sampler.steps(item["steps"]));
    ASSERT_TRUE(at::equal(steps.now, expected("timesteps")));
    const GaussianStep step =
        sampler.step(expected("prediction"), expected("sample"), steps.now, steps.before, item["eta"]);
    EXPECT_TRUE(near(draw(step, expected("noise")), expected("next"), 1e-5));
    EXPECT_TRUE(
        near(sampler.predict_clean(expected("prediction"), expected("sample"), steps.now), expected("clean"), 1e-5));
  }
}

TEST(StochasticDdim, WithoutEtaIsTheDeterministicSampler) {
  for (const char* type : {"epsilon", "v_prediction", "sample"}) {
    SCOPED_TRACE(type);
    SchedulerConfig config = config_of(kStableDiffusion);
    config.prediction_type = parse_prediction_type(type, "test");
    const auto scheduler = make_scheduler("ddim", config);
    scheduler->set_timesteps(8);
    const StochasticDdim sampler(config);
    const std::vector<DdimStep> steps = sampler.steps(8);
    ASSERT_EQ(steps.size(), 8u);
    for (size_t i = 0; i < steps.size(); ++i) {
      const at::Tensor sample = values({2, 4, 3, 3}, 2 * i);
      const at::Tensor prediction = values({2, 4, 3, 3}, 2 * i + 1);
      const at::Tensor now = at::full({2}, steps[i].timestep, at::kLong);
      const at::Tensor before = at::full({2}, steps[i].previous_timestep, at::kLong);
      const GaussianStep step = sampler.step(prediction, sample, now, before, /*eta=*/0);
      EXPECT_TRUE(near(step.mean, scheduler->step(prediction, i, sample, {}), 1e-6));
      EXPECT_TRUE(at::equal(step.std, at::zeros({2})));
    }
  }
}

TEST(StochasticDdim, FullEtaHasThePosteriorVarianceOfDdpm) {
  const StochasticDdim sampler(config_of(kStableDiffusion));
  const at::Tensor betas = at::linspace(std::sqrt(0.00085), std::sqrt(0.012), 1000, at::kDouble).square();
  const at::Tensor products = (1 - betas).cumprod(0);
  const at::Tensor now = longs({1, 2, 10, 500, 999});
  const GaussianStep step = sampler.step(values({5, 2}, 0), values({5, 2}, 1), now, now - 1, /*eta=*/1);
  const at::Tensor posterior =
      (1 - products.index_select(0, now - 1)) / (1 - products.index_select(0, now)) * betas.index_select(0, now);
  EXPECT_TRUE(near(step.std.square() / posterior, at::ones({5}), 2e-3));  // 1 - abar cancels in fp32 at small t
  EXPECT_TRUE(near(step.std.square(), posterior, 1e-5));
}

TEST(StochasticDdim, LogProbEqualsAnIndependentComputation) {
  const StochasticDdim sampler(config_of(kStableDiffusion));
  const at::Tensor alphas_cumprod = make_alphas_cumprod(sampler.config()).to(at::kDouble);
  const std::vector<int64_t> now = {981, 501, 21, 1};
  const std::vector<int64_t> before = {961, 481, 1, -19};
  const double eta = 0.8;
  const at::Tensor prediction = values({4, 4, 5, 3}, 2);
  const at::Tensor sample = values({4, 4, 5, 3}, 3);
  const at::Tensor offset = values({4, 4, 5, 3}, 4);
  // x_prev near its distribution, as a sampler would have drawn it.
  const GaussianStep step = sampler.step(prediction, sample, longs(now), longs(before), eta);
  const at::Tensor next = draw(step, offset);
  const at::Tensor found = mean_log_prob(step, next);
  for (size_t i = 0; i + 1 < now.size(); ++i) {
    SCOPED_TRACE(now[i]);
    const auto row = static_cast<int64_t>(i);
    const double alpha = alphas_cumprod[now[i]].item<double>();
    const double alpha_previous = alphas_cumprod[before[i]].item<double>();
    const double sigma = eta * std::sqrt((1 - alpha_previous) / (1 - alpha) * (1 - alpha / alpha_previous));
    const at::Tensor noise = prediction[row].to(at::kDouble);
    const at::Tensor clean = (sample[row].to(at::kDouble) - std::sqrt(1 - alpha) * noise) / std::sqrt(alpha);
    const at::Tensor mean = std::sqrt(alpha_previous) * clean + std::sqrt(1 - alpha_previous - sigma * sigma) * noise;
    const at::Tensor density = -(next[row].to(at::kDouble) - mean).square() / (2 * sigma * sigma) - std::log(sigma) -
                               0.5 * std::log(2 * std::numbers::pi);
    EXPECT_NEAR(found[row].item<float>(), density.mean().item<double>(),
                1e-4 * std::abs(density.mean().item<double>()));
  }
  // With set_alpha_to_one = false the step from timestep 1 ends at abar_0, with a density; the next test has the other.
  EXPECT_TRUE(std::isfinite(found[3].item<float>()));
}

TEST(StochasticDdim, KnowsWhichStepsCannotBeRandom) {
  const auto has_variance = [](const std::string& changes) {
    std::vector<bool> found;
    for (const DdimStep& step : StochasticDdim(config_of(changes)).steps(5)) found.push_back(step.has_variance);
    return found;
  };
  // The end is clean.
  EXPECT_EQ(has_variance(R"({"set_alpha_to_one": true})"), (std::vector<bool>{true, true, true, true, false}));
  // The end is the level of timestep 0: where the last step already is, or one below it.
  EXPECT_EQ(has_variance(R"({"set_alpha_to_one": false})"), (std::vector<bool>{true, true, true, true, false}));
  EXPECT_EQ(has_variance(R"({"set_alpha_to_one": false, "steps_offset": 1})"), std::vector<bool>(5, true));
  const StochasticDdim sampler(config_of(R"({"set_alpha_to_one": true})"));
  const GaussianStep last = sampler.step(values({1, 4}, 0), values({1, 4}, 1), longs({0}), longs({-200}), 1.0);
  EXPECT_EQ(last.std.item<float>(), 0.0f);
}

TEST(StochasticDdim, MixedTimestepsEqualItemsAlone) {
  for (const char* type : {"epsilon", "v_prediction", "sample"}) {
    SchedulerConfig config = config_of(kStableDiffusion);
    config.prediction_type = parse_prediction_type(type, "test");
    const StochasticDdim sampler(config);
    const at::Tensor prediction = values({3, 4, 2, 2}, 0);
    const at::Tensor sample = values({3, 4, 2, 2}, 1);
    const at::Tensor now = longs({981, 1, 301});
    const at::Tensor before = longs({961, -19, 281});
    const GaussianStep all = sampler.step(prediction, sample, now, before, 1.0);
    for (int64_t i = 0; i < 3; ++i) {
      const auto row = [&](const at::Tensor& tensor) { return tensor.narrow(0, i, 1); };
      const GaussianStep alone = sampler.step(row(prediction), row(sample), row(now), row(before), 1.0);
      EXPECT_TRUE(at::equal(row(all.mean), alone.mean));
      EXPECT_TRUE(at::equal(row(all.std), alone.std));
    }
  }
}

TEST(StochasticDdim, LogProbGradientEqualsFiniteDifferences) {
  const StochasticDdim sampler(config_of(kStableDiffusion));
  const at::Tensor sample = values({2, 1, 2, 2}, 1).to(at::kDouble);
  const at::Tensor next = values({2, 1, 2, 2}, 2).to(at::kDouble);
  const auto log_prob = [&](const at::Tensor& prediction) {
    return mean_log_prob(sampler.step(prediction, sample, longs({981, 401}), longs({961, 381}), 1.0), next).sum();
  };
  at::Tensor prediction = values({2, 1, 2, 2}, 3).to(at::kDouble).requires_grad_();
  log_prob(prediction).backward();
  at::Tensor expected = at::zeros_like(sample);
  const double step = 1e-5;
  for (int64_t i = 0; i < prediction.numel(); ++i) {
    at::Tensor direction = at::zeros({prediction.numel()}, at::kDouble);
    direction[i] = step;
    direction = direction.view_as(sample);
    const at::Tensor change = log_prob(prediction.detach() + direction) - log_prob(prediction.detach() - direction);
    expected.view({-1})[i] = change / (2 * step);
  }
  EXPECT_TRUE(near(prediction.grad(), expected, 1e-6));
}

TEST(StochasticDdim, ComputesInSinglePrecision) {
  const StochasticDdim sampler(config_of(kStableDiffusion));
  const at::Tensor half = values({1, 4, 2, 2}, 0).to(at::kBFloat16);
  const GaussianStep found = sampler.step(half, half, longs({981}), longs({961}), 1.0);
  const at::Tensor wide = half.to(at::kFloat);
  EXPECT_TRUE(at::equal(found.mean, sampler.step(wide, wide, longs({981}), longs({961}), 1.0).mean));
}

TEST(StochasticDdim, StaysFiniteWhereAllNoiseIsDrawnAfresh) {
  SchedulerConfig config = config_of(kStableDiffusion);
  config.rescale_betas_zero_snr = true;
  config.prediction_type = PredictionType::kVPrediction;
  const StochasticDdim sampler(config);
  const at::Tensor before = at::arange(0, 999, at::kLong);
  const at::Tensor now = at::full({999}, 999, at::kLong);
  const GaussianStep step = sampler.step(values({999, 2}, 0), values({999, 2}, 1), now, before, 1.0);
  EXPECT_TRUE(step.mean.isfinite().all().item<bool>());
}

TEST(StochasticDdim, RefusesFlowPrediction) {
  SchedulerConfig config;
  config.prediction_type = PredictionType::kFlow;
  EXPECT_THROW(StochasticDdim{config}, Error);
}

}  // namespace
}  // namespace prefusion::schedulers

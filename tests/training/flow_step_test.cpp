#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/rng.h"
#include "kernels/noise_and_target/noise_and_target.h"
#include "losses/registry.h"
#include "tests/support/tensor_near.h"
#include "training/train_step.h"

namespace prefusion::training {
namespace {

using tests::near;

constexpr int64_t kGroups = 3;
constexpr double kShift = 3.0;

// Says what it was told: half the noisy latents plus a thousandth of the timestep.
class TellingDenoiser : public unet::Denoiser {
 public:
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps, const unet::Conditioning&) override {
    return 0.5 * noisy_latents + (timesteps.to(at::kFloat) / 1000).reshape({-1, 1, 1, 1});
  }
  const unet::DenoiserInfo& info() const override { return info_; }

 private:
  unet::DenoiserInfo info_;
};

schedulers::NoiseSchedule flow_schedule(const std::string& extra = "") {
  return schedulers::NoiseSchedule(schedulers::parse_scheduler_config(
      R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0)" + extra + "}", "test"));
}

double sigma_of(int64_t timestep) {
  const double line = static_cast<double>(timestep + 1) / 1000;
  return kShift * line / (1 + (kShift - 1) * line);
}

EncodedBatch batch() {
  const at::Generator generator = make_torch_generator(4);
  EncodedBatch batch;
  batch.mean = at::randn({kGroups, 2, 4, 3, 5}, generator);
  batch.std = at::full({kGroups, 2, 4, 3, 5}, 0.1);
  batch.prompts.encoder_hidden_states = at::randn({kGroups, 7, 8}, generator);
  for (int64_t i = 0; i < kGroups; ++i) batch.groups.push_back({.item = i, .draw = 2});
  return batch;
}

class FlowStep : public testing::Test {
 protected:
  StepTensors forward(const std::string& objective, const std::string& weighting = "none") {
    TrainStepOptions options;
    const losses::ObjectiveInfo& info = losses::find_objective(objective).info;
    const auto kappa = info.has_kappa() ? std::optional<double>(50.0) : std::nullopt;
    options.params = losses::resolve_params(info, "", std::nullopt, kappa);
    options.logit_weighting = TimestepWeighting::parse(weighting, "--logit-weighting");
    options.seed = 11;
    const TrainStep step(denoiser_, nullptr, schedule_, losses::find_objective(objective), options);
    return step.forward(batch(), timesteps_, error_ref_);
  }

  // A double-precision copy of what a step's errors should be: [B, k].
  static at::Tensor recomputed_errors(const GroupInputs& inputs, const at::Tensor& noise) {
    std::vector<double> errors;
    const at::Tensor latents = inputs.latents.to(at::kDouble);
    for (int64_t b = 0; b < kGroups; ++b) {
      const double sigma = sigma_of(inputs.timesteps[b][0].item<int64_t>());
      for (int64_t i = 0; i < 2; ++i) {
        const at::Tensor x = latents[b][i];
        const at::Tensor n = noise[b][i].to(at::kDouble);
        const at::Tensor prediction = 0.5 * ((1 - sigma) * x + sigma * n) + sigma;
        errors.push_back((n - x - prediction).square().mean().item<double>());
      }
    }
    return at::tensor(errors, at::kDouble).view({kGroups, 2});
  }

  TellingDenoiser denoiser_;
  schedulers::NoiseSchedule schedule_ = flow_schedule();
  at::Tensor timesteps_ = at::tensor({0, 700, 999}, at::kLong);
  at::Tensor error_ref_ = at::tensor({1.0, 1.1, 0.9, 1.2, 1.0, 0.8}).view({kGroups, 2});
};

TEST_F(FlowStep, EqualsItsFormulasInDoublePrecision) {
  const StepTensors step = forward("diffusion-dpo");
  const GroupInputs& inputs = step.inputs;
  const at::Tensor noise = kernels::group_noise(inputs.noise_streams, 11, {4, 3, 5}, 2);
  EXPECT_EQ(inputs.told_timesteps.scalar_type(), at::kFloat);
  for (int64_t b = 0; b < kGroups; ++b) {
    const double sigma = sigma_of(timesteps_[b].item<int64_t>());
    EXPECT_NEAR(inputs.sigmas[b][1].item<double>(), sigma, 1e-6);
    EXPECT_NEAR(inputs.told_timesteps[b][0].item<double>(), 1000 * sigma, 1e-3);
    EXPECT_TRUE(near(inputs.noisy_latents[b], (1 - sigma) * inputs.latents[b] + sigma * noise[b], 1e-6));
  }
  EXPECT_TRUE(near(inputs.target, noise - inputs.latents, 1e-6));
  const at::Tensor errors = recomputed_errors(inputs, noise);
  EXPECT_TRUE(near(step.errors.error, errors, 1e-6));
  const at::Tensor scores = error_ref_.to(at::kDouble) - errors;
  const at::Tensor logits = 50.0 * (scores.select(1, 0) - scores.select(1, 1));
  EXPECT_TRUE(near(step.loss.loss, (-logits).exp().log1p().mean(), 1e-4));
}

// Of Flow-DPO's exact coefficient: the velocity's error as that of the noise it implies.
TEST_F(FlowStep, WeightsAreFunctionsOfSigma) {
  const at::Tensor scale = forward("diffusion-dpo", "like-epsilon").errors.error_scale;
  for (int64_t b = 0; b < kGroups; ++b) {
    const double sigma = sigma_of(timesteps_[b].item<int64_t>());
    EXPECT_NEAR(scale[b].item<double>(), std::pow(1 - sigma, 2), 1e-6);
  }
}

TEST_F(FlowStep, OtherObjectivesSeeTheSameErrors) {
  const at::Tensor errors = forward("diffusion-dpo").errors.error;
  for (const char* objective : {"mapo", "simpo", "dpo-ipo", "dpo-hinge"}) {
    SCOPED_TRACE(objective);
    const StepTensors step = forward(objective);
    EXPECT_TRUE(at::equal(step.errors.error, errors));
    EXPECT_TRUE(std::isfinite(step.loss.loss.item<double>()));
  }
}

// A range and a list name the numbers that the denoiser is told, which the shift has moved.
TEST(FlowTimesteps, RangesAndListsAreInToldNumbers) {
  const schedulers::NoiseSchedule schedule = flow_schedule();
  const auto told = [&](const std::string& sampling, const std::string& range) {
    const TimestepSampler sampler = TimestepSampler::parse(sampling, range, schedule);
    std::vector<int64_t> drawn;
    for (uint64_t i = 0; i < 4000; ++i) drawn.push_back(sampler.draw({1, i, 0}));
    return schedule.denoiser_timesteps(at::tensor(drawn, at::kLong));
  };
  const at::Tensor upper = told("uniform", "600:1000");
  EXPECT_GE(upper.min().item<double>(), 600);
  EXPECT_LT(upper.min().item<double>(), 605);
  EXPECT_EQ(upper.max().item<double>(), 1000);
  const at::Tensor lower = told("uniform", "0:600");
  EXPECT_LT(lower.max().item<double>(), 600);
  EXPECT_GT(lower.max().item<double>(), 590);
  const at::Tensor listed = told("list:801,338", "");
  EXPECT_NEAR(listed.max().item<double>(), 801, 1.5);
  EXPECT_NEAR(listed.min().item<double>(), 338, 1.5);
}

TEST(FlowTimesteps, UniformDrawsAreTheUnshiftedLevels) {
  const TimestepSampler sampler = TimestepSampler::parse("uniform", "", flow_schedule());
  const TimestepSampler plain = TimestepSampler::parse("uniform", "", 1000);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(sampler.draw({1, i, 0}), plain.draw({1, i, 0}));
}

// Shift 3 leaves no level between the first two, told 2.99 and 5.96.
TEST(FlowTimesteps, RefusesRangesWithoutALevel) {
  EXPECT_THROW(TimestepSampler::parse("uniform", "3:5", flow_schedule()), Error);
  EXPECT_NO_THROW(TimestepSampler::parse("uniform", "3:6", flow_schedule()));
}

}  // namespace
}  // namespace prefusion::training

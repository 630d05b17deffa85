#include "training/graphed_step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/flop_counter.h"
#include "core/rng.h"
#include "losses/registry.h"
#include "nn/layers.h"
#include "nn/lora.h"
#include "tests/kernels/device_test.h"
#include "tests/support/host_waits.h"
#include "tests/support/tensor_near.h"
#include "training/ema.h"
#include "training/guards.h"
#include "training/make_optimizer.h"
#include "training/reference_policy.h"
#include "training/step_source.h"
#include "training/synthetic_batch.h"
#include "training/train_step_options.h"

namespace prefusion::training {
namespace {

constexpr const char* kUNet = R"({"_class_name": "UNet2DConditionModel", "down_block_types":
    ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 6,
    "attention_head_dim": 2})";

schedulers::NoiseSchedule schedule() {
  return schedulers::NoiseSchedule(schedulers::parse_scheduler_config(
      R"({"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear"})", "test"));
}

std::shared_ptr<unet::Denoiser> make_unet(uint64_t seed, at::Device device) {
  const auto unet = unet::make_denoiser(kUNet, "test");
  nn::init_weights(*unet, make_torch_generator(seed));
  unet->to(device);
  return unet;
}

// A policy that all the weights of, or a LoRA of, is trained, and the step of an objective.
struct SmallRun {
  SmallRun(const std::string& objective_name, bool is_lora, at::Device device)
      : device(device), objective(losses::find_objective(objective_name)) {
    options.objective = objective_name;
    policy.denoiser = make_unet(1, device);
    if (is_lora) {
      policy.adapter =
          nn::LoraAdapter::create(*policy.denoiser, nn::LoraConfig{.rank = 2, .alpha = 2}, make_torch_generator(2));
      policy.trainable = policy.adapter->parameters();
      for (auto& [name, parameter] : policy.trainable) parameter.detach().add_(0.05);
      reference = adapter_off_reference(policy.denoiser, policy.adapter);
    } else {
      for (const auto& item : policy.denoiser->named_parameters())
        policy.trainable.push_back({item.key(), item.value()});
      reference = frozen_reference(make_unet(3, device));
    }
    for (auto& [name, parameter] : policy.trainable) parameter.set_requires_grad(true);
    params = losses::resolve_params(objective.info, "", std::nullopt, std::nullopt);
    step.emplace(*policy.denoiser, objective.info.needs_reference ? reference.get() : nullptr, noise_schedule,
                 objective, train_step_options(options, objective, params, policy, noise_schedule, at::kFloat));
  }

  EncodedBatch batch(int64_t groups, uint64_t seed, int64_t height = 8) const {
    at::manual_seed(seed);
    const ItemShape shape{.latents = {4, height, 12},
                          .prompt = {at::randn({1, 5, 6}, at::TensorOptions().device(device)), {}, {}},
                          .time_ids = {}};
    const int64_t items = objective.info.data == losses::DataKind::kList   ? 3
                          : objective.info.data == losses::DataKind::kPair ? 2
                                                                           : 1;
    EncodedBatch batch = synthetic_batch(shape, groups, items, objective.info, device);
    for (auto& group : batch.groups) group.draw = seed;
    return batch;
  }
  StepInputs inputs(int64_t groups, uint64_t seed, int64_t height = 8) const {
    const EncodedBatch asked = batch(groups, seed, height);
    return step->prepare(asked, step->draw_timesteps(asked));
  }
  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> result;
    for (const auto& [name, parameter] : policy.trainable) {
      result.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::Tensor());
    }
    return result;
  }
  void forget_gradients() {
    for (auto& [name, parameter] : policy.trainable) parameter.mutable_grad().reset();
  }

  at::Device device;
  AlignOptions options;
  Policy policy;
  std::unique_ptr<ReferencePolicy> reference;
  schedulers::NoiseSchedule noise_schedule = schedule();
  const losses::Objective& objective;
  losses::ObjectiveParams params;
  std::optional<TrainStep> step;
};

class GraphedStepTest : public tests::DeviceTest {
 protected:
  // Launch by launch, from no gradients.
  static std::vector<at::Tensor> expected_gradients(SmallRun& run, const std::vector<StepInputs>& parts, double share) {
    run.forget_gradients();
    for (const StepInputs& part : parts) differentiate(run.step->compute(part).loss.loss, share);
    auto gradients = run.gradients();
    run.forget_gradients();
    return gradients;
  }
  // A GPU sums in other orders.
  void expect_equal(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& expected) const {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].defined(), expected[i].defined()) << i;
      if (!found[i].defined()) continue;
      EXPECT_TRUE(device().is_cpu() ? at::equal(found[i], expected[i]) : tests::near(found[i], expected[i], 1e-5)) << i;
    }
  }
};

TEST_P(GraphedStepTest, AddsTheGradientsOfEveryMicroStep) {
  for (const bool is_lora : {false, true}) {
    SmallRun run("diffusion-dpo", is_lora, device());
    GraphedStep graphed(*run.step, run.policy.trainable, 0.5);
    for (uint64_t step = 0; step < 3; ++step) {
      const std::vector<StepInputs> parts = {run.inputs(2, 10 * step), run.inputs(2, 10 * step + 1)};
      const auto expected = expected_gradients(run, parts, 0.5);
      for (const StepInputs& part : parts) {
        const losses::LossOutput found = graphed.run(part), live = run.step->compute(part).loss;
        EXPECT_TRUE(tests::near(found.loss, live.loss, 1e-6));
        for (const auto& [name, value] : live.metrics) EXPECT_TRUE(tests::near(found.metrics.at(name), value, 1e-6));
      }
      expect_equal(run.gradients(), expected);
      for (auto& [name, parameter] : run.policy.trainable) {
        if (parameter.grad().defined()) parameter.mutable_grad().zero_();
      }
    }
    EXPECT_EQ(graphed.num_graphs(), 1);
  }
}

// The run before a recording leaves nothing behind, in the middle of a step as well.
TEST_P(GraphedStepTest, BucketsTakeTurns) {
  SmallRun run("mapo", /*is_lora=*/false, device());
  GraphedStep graphed(*run.step, run.policy.trainable, 1.0);
  for (uint64_t step = 0; step < 2; ++step) {
    const std::vector<StepInputs> parts = {run.inputs(2, step, 8), run.inputs(2, 5 + step, 4), run.inputs(1, step, 8)};
    auto expected = expected_gradients(run, parts, 1.0);
    for (const StepInputs& part : parts) graphed.run(part);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(tests::near(run.policy.trainable[i].tensor.grad(), expected[i], 1e-5)) << i;
    }
    run.forget_gradients();
    graphed.run(parts[0]);  // gradients that are not there are made
    for (auto& [name, parameter] : run.policy.trainable) parameter.mutable_grad().zero_();
  }
  EXPECT_EQ(graphed.num_graphs(), 3);
}

TEST_P(GraphedStepTest, LaterStepsLeaveEarlierAnswersAndQuestionsAlone) {
  SmallRun run("diffusion-dpo", /*is_lora=*/true, device());
  GraphedStep graphed(*run.step, run.policy.trainable, 1.0);
  StepInputs first = run.inputs(2, 1);
  const at::Tensor asked = first.groups.noisy_latents.clone();
  const losses::LossOutput found = graphed.run(first);
  const at::Tensor loss = found.loss.clone();
  graphed.run(run.inputs(2, 2));
  EXPECT_TRUE(at::equal(found.loss, loss));
  EXPECT_TRUE(at::equal(first.groups.noisy_latents, asked));
}

TEST_P(GraphedStepTest, FollowsWeightsThatMoveInPlace) {
  SmallRun run("diffusion-dpo", /*is_lora=*/false, device());
  GraphedStep graphed(*run.step, run.policy.trainable, 1.0);
  const StepInputs inputs = run.inputs(2, 1);
  const at::Tensor before = graphed.run(inputs).loss;
  for (auto& [name, parameter] : run.policy.trainable) parameter.detach().mul_(1.1);
  const at::Tensor after = graphed.run(inputs).loss;
  EXPECT_FALSE(at::equal(before, after));
  EXPECT_TRUE(tests::near(after, run.step->compute(inputs).loss.loss, 1e-6));
}

TEST_P(GraphedStepTest, CountsTheOperationsOfAReplay) {
  SmallRun run("diffusion-dpo", /*is_lora=*/false, device());
  GraphedStep graphed(*run.step, run.policy.trainable, 1.0);
  const StepInputs inputs = run.inputs(2, 1);
  graphed.run(inputs);
  const auto operations = [](const std::function<void()>& work) {
    const FlopCounter counter;
    work();
    return counter.total();
  };
  const int64_t replayed = operations([&] { graphed.run(inputs); });
  EXPECT_EQ(replayed, operations([&] { differentiate(run.step->compute(inputs).loss.loss, 1.0); }));
  EXPECT_GT(replayed, 100'000);
}

INSTANTIATE_TEST_SUITE_P(Devices, GraphedStepTest, testing::Values("cpu", "cuda"), tests::device_name);

// Everything between two steps' logs: passes, norm, verdict, update, average.
TEST(TrainingOnAGpu, WaitsForNothingWhateverTheObjective) {
  int count = 0;
  for (const losses::ObjectiveInfo* info : losses::listed_objectives()) {
    const bool has_step = info->data != losses::DataKind::kOnline && !info->needs_users && !info->fuses_experts &&
                          info->latent_source == losses::LatentSource::kForwardNoise;
    if (!has_step) continue;
    SCOPED_TRACE(info->name);
    ++count;
    SmallRun run(info->name, /*is_lora=*/true, at::kCPU);
    GradientGuard guard(8.0, 0, at::kCPU);
    const auto optimizer =
        make_optimizer(parse_optimizer(count % 2 == 0 ? "adamw" : "adamw8bit", ""), run.policy.trainable, 1e-2);
    Ema ema(optimizer->master_weights(), 0.9);
    const EncodedBatch batch = run.batch(2, 3);
    const tests::HostWaits waits;
    for (int64_t step = 1; step <= 2; ++step) {
      const at::Tensor loss = run.step->forward(batch, run.step->draw_timesteps(batch)).loss.loss;
      differentiate(loss, 1.0);
      const at::Tensor norm = optimizer->grad_norm();
      const at::Tensor takes = guard.judge(loss, norm, step, "x");
      optimizer->step(1e-3, {.takes = takes, .gradient_factor = clip_factor(norm, 1.0)});
      ema.update(optimizer->master_weights(), takes);
      optimizer->zero_grad();
    }
    EXPECT_EQ(tests::HostWaits::text(), "");
  }
  EXPECT_GT(count, 20);
}

TEST(HostWaits, AreFound) {
  const tests::HostWaits waits;
  at::ones({2}).sum().item<float>();
  EXPECT_NE(tests::HostWaits::text().find("aten::item (1)"), std::string::npos) << tests::HostWaits::text();
}

}  // namespace
}  // namespace prefusion::training

// The objectives on trajectories against their formulas with plain doubles, then what all of them promise.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "losses/online/ppo_clip.h"
#include "tests/losses/online/make_trajectories.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

double at3(const at::Tensor& x, int64_t b, int64_t i, int64_t t) {
  return x[b][i][t].item<double>();
}

// Mean over the trajectories and steps of prompt b.
double mean_over_steps(const TrajectoryBatch& batch, const std::function<double(int64_t i, int64_t t)>& value) {
  double sum = 0;
  const int64_t k = batch.log_prob.size(1), num_steps = batch.log_prob.size(2);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t t = 0; t < num_steps; ++t) sum += value(i, t);
  }
  return sum / static_cast<double>(k * num_steps);
}

double ppo(double advantage, double log_ratio, double clip) {
  const double a = std::min(5.0, std::max(-5.0, advantage));
  const double ratio = std::exp(log_ratio);
  return std::max(-a * ratio, -a * std::min(1 + clip, std::max(1 - clip, ratio)));
}

TEST(PpoClip, EqualsItsFormulaInsideAndOutsideTheClip) {
  for (const double spread : {5e-5, 1e-2}) {
    TrajectoryBatch batch = make_trajectories(2, 3, 4, spread);
    batch.advantage = batch.advantage * 6;  // some beyond the limit of 5
    for (int64_t b = 0; b < 2; ++b) {
      const double policy = mean_over_steps(batch, [&](int64_t i, int64_t t) {
        return ppo(batch.advantage[b][i].item<double>(),
                   at3(batch.log_prob, b, i, t) - at3(batch.log_prob_old, b, i, t), 1e-4);
      });
      const double kl = mean_over_steps(
          batch, [&](int64_t i, int64_t t) { return at3(batch.kl, b, i, t) * batch.step_size[t].item<double>(); });
      EXPECT_NEAR(prompt_losses("ddpo", batch)[b].item<double>(), policy, 1e-12);
      EXPECT_NEAR(prompt_losses("dance-grpo", batch)[b].item<double>(), policy, 1e-12);
      EXPECT_NEAR(prompt_losses("flow-grpo", batch)[b].item<double>(), policy + 0.04 * kl, 1e-12);
    }
  }
}

TEST(PpoClip, HasThePolicyGradientAtTheSamplingPolicyAndNoneBeyondTheClip) {
  TrajectoryBatch batch = make_trajectories(1, 2, 1, 0);
  batch.advantage = at::tensor({2.0, -3.0}, at::kDouble).view({1, 2});
  const auto gradient = [&batch](double log_ratio) {
    batch.log_prob = (batch.log_prob_old + log_ratio).requires_grad_();
    trajectory_loss(find_online("ddpo"), batch, online_params("ddpo")).backward();
    return batch.log_prob.grad().flatten() * 2;  // two trajectories in the mean
  };
  EXPECT_TRUE(near(gradient(0), at::tensor({-2.0, 3.0}, at::kDouble), 1e-12));
  // Above the clip the good trajectory is left alone, the bad one is still pushed down; below it the other way.
  EXPECT_EQ(gradient(1e-2)[0].item<double>(), 0);
  EXPECT_NEAR(gradient(1e-2)[1].item<double>(), 3 * std::exp(1e-2), 1e-12);
  EXPECT_NEAR(gradient(-1e-2)[0].item<double>(), -2 * std::exp(-1e-2), 1e-12);
  EXPECT_EQ(gradient(-1e-2)[1].item<double>(), 0);
}

TEST(PpoClip, MetricsCountRatiosOutsideTheClip) {
  TrajectoryBatch batch = make_trajectories(1, 2, 2, 0);
  batch.log_prob = batch.log_prob_old + at::tensor({0.0, 2e-4, -3e-4, 5e-5}, at::kDouble).view({1, 2, 2});
  const auto metrics = ppo_metrics(batch, 1e-4);
  EXPECT_NEAR(metrics.at("clip_fraction").item<double>(), 0.5, 1e-12);
  EXPECT_NEAR(metrics.at("approx_kl").item<double>(), (4e-8 + 9e-8 + 25e-10) / 8, 1e-15);
}

TEST(GrpoGuard, CentresTheRatioAndDividesByTheStep) {
  const TrajectoryBatch batch = make_trajectories(2, 3, 4, 1e-5);
  for (int64_t b = 0; b < 2; ++b) {
    const double expected = mean_over_steps(batch, [&](int64_t i, int64_t t) {
      const double std = batch.step_std[t].item<double>();
      const double log_ratio =
          (at3(batch.log_prob, b, i, t) - at3(batch.log_prob_old, b, i, t) + at3(batch.kl_old, b, i, t)) * std;
      return ppo(batch.advantage[b][i].item<double>(), log_ratio, 2e-6) / batch.step_size[t].item<double>();
    });
    EXPECT_NEAR(prompt_losses("grpo-guard", batch)[b].item<double>(), expected, 1e-11);
  }
}

TEST(D3po, IsDpoOnClampedRatiosOfSteps) {
  const TrajectoryBatch batch = make_trajectories(2, 2, 5, 0.1);
  for (const auto& [name, beta] : std::vector<std::pair<std::string, double>>{{"d3po", 0.1}, {"spo", 10}}) {
    for (int64_t b = 0; b < 2; ++b) {
      double expected = 0;
      for (int64_t t = 0; t < 5; ++t) {
        const auto ratio = [&](int64_t i) {
          return std::min(1.1,
                          std::max(0.9, std::exp(at3(batch.log_prob, b, i, t) - at3(batch.log_prob_ref, b, i, t))));
        };
        expected -= std::log(1 / (1 + std::exp(-(beta * std::log(ratio(0)) - beta * std::log(ratio(1)))))) / 5;
      }
      EXPECT_NEAR(prompt_losses(name, batch)[b].item<double>(), expected, 1e-12) << name;
    }
  }
}

TEST(D3po, HasNoGradientOutsideTheClamp) {
  TrajectoryBatch batch = make_trajectories(1, 2, 1, 0);
  batch.log_prob = (batch.log_prob_ref + at::tensor({0.2, 0.01}, at::kDouble).view({1, 2, 1})).requires_grad_();
  trajectory_loss(find_online("d3po"), batch, online_params("d3po")).backward();
  EXPECT_EQ(batch.log_prob.grad()[0][0][0].item<double>(), 0);
  EXPECT_GT(batch.log_prob.grad()[0][1][0].item<double>(), 0);
  EXPECT_THROW(online_loss("d3po", make_trajectories(1, 3, 1, 0)), Error);
}

TEST(Prdp, IsTheLargerOfTwoSquaredErrorsOverAllPairs) {
  for (const double spread : {1e-6, 1e-2}) {
    TrajectoryBatch batch = make_trajectories(2, 4, 3, spread);
    batch.num_elements = 48;
    for (int64_t b = 0; b < 2; ++b) {
      std::vector<double> plain(4, 0), clipped(4, 0);
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t t = 0; t < 3; ++t) {
          const double now = 48 * (at3(batch.log_prob, b, i, t) - at3(batch.log_prob_ref, b, i, t));
          const double old = 48 * (at3(batch.log_prob_old, b, i, t) - at3(batch.log_prob_ref, b, i, t));
          plain[i] += now;
          clipped[i] += std::min(old + 1e-4, std::max(old - 1e-4, now));
        }
      }
      double expected = 0;
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t j = i + 1; j < 4; ++j) {
          const double wanted = (batch.reward[b][i].item<double>() - batch.reward[b][j].item<double>()) / 10;
          expected +=
              std::max(std::pow(plain[i] - plain[j] - wanted, 2), std::pow(clipped[i] - clipped[j] - wanted, 2)) / 6;
        }
      }
      EXPECT_NEAR(prompt_losses("prdp", batch)[b].item<double>(), expected, 1e-11 * std::max(1.0, expected));
    }
  }
}

TEST(Prdp, IsZeroWhereTheLogRatiosAreTheRewardsOverBeta) {
  TrajectoryBatch batch = make_trajectories(1, 3, 2, 0);
  batch.log_prob = batch.log_prob_ref + (batch.reward / 10 / 2 - 7).unsqueeze(2);
  batch.log_prob_old = batch.log_prob;
  EXPECT_NEAR(online_loss("prdp", batch), 0, 1e-12);
  EXPECT_THROW(online_loss("prdp", make_trajectories(1, 1, 1, 0)), Error);
}

class TrajectoryObjectives : public testing::TestWithParam<const OnlineObjective*> {
 protected:
  const std::string& name() const { return GetParam()->info.name; }
  TrajectoryBatch make(int64_t num_prompts, double spread) const {
    return make_trajectories(num_prompts, GetParam()->is_pairwise ? 2 : 3, 2, spread);
  }
};

TEST_P(TrajectoryObjectives, GradientEqualsFiniteDifferences) {
  using Input = at::Tensor TrajectoryBatch::*;
  for (const Input input : {&TrajectoryBatch::log_prob, &TrajectoryBatch::kl, &TrajectoryBatch::kl_old}) {
    TrajectoryBatch batch = make(2, 2e-5);
    (batch.*input).requires_grad_();
    const at::Tensor loss = trajectory_loss(*GetParam(), batch, online_params(name()));
    if (!loss.requires_grad()) continue;
    loss.backward();
    const at::Tensor gradient = (batch.*input).grad().flatten();
    for (int64_t j = 0; j < gradient.numel(); ++j) {
      const auto moved = [&](double step) {
        TrajectoryBatch other = batch;
        other.*input = (batch.*input).detach().clone();
        (other.*input).view({-1})[j] += step;
        return online_loss(name(), other);
      };
      const double expected = (moved(1e-9) - moved(-1e-9)) / 2e-9;
      EXPECT_NEAR(gradient[j].item<double>(), expected, 1e-4 * gradient.abs().max().item<double>());
    }
  }
}

TEST_P(TrajectoryObjectives, PromptsDoNotSeeEachOther) {
  const TrajectoryBatch batch = make(3, 1e-3);
  const at::Tensor together = prompt_losses(name(), batch);
  ASSERT_EQ(together.sizes(), at::IntArrayRef({3}));
  EXPECT_NEAR(online_loss(name(), batch), together.mean().item<double>(), 1e-12);
  for (int64_t b = 0; b < 3; ++b) {
    TrajectoryBatch one = batch;
    for (at::Tensor* tensor :
         {&one.log_prob, &one.log_prob_old, &one.log_prob_ref, &one.advantage, &one.reward, &one.kl, &one.kl_old}) {
      *tensor = tensor->slice(0, b, b + 1);
    }
    EXPECT_TRUE(near(prompt_losses(name(), one)[0], together[b], 1e-12));
  }
}

TEST_P(TrajectoryObjectives, StayFiniteInFp32FarFromTheSamplingPolicy) {
  for (const double gap : {-1e4, -50.0, -1e-8, 0.0, 1e-8, 50.0, 1e4}) {
    TrajectoryBatch batch = make(2, 1e-3);
    for (at::Tensor* tensor : {&batch.log_prob_old, &batch.log_prob_ref, &batch.advantage, &batch.reward, &batch.kl,
                               &batch.kl_old, &batch.step_std, &batch.step_size}) {
      *tensor = tensor->to(at::kFloat);
    }
    batch.num_elements = 16384;
    batch.log_prob = (batch.log_prob_old + gap).requires_grad_();
    const at::Tensor loss = trajectory_loss(*GetParam(), batch, online_params(name()));
    loss.backward();
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    EXPECT_TRUE(loss.isfinite().item<bool>()) << gap;
    EXPECT_TRUE(batch.log_prob.grad().isfinite().all().item<bool>()) << gap;
  }
}

TEST_P(TrajectoryObjectives, OnlyThePolicyCarriesAGradient) {
  TrajectoryBatch batch = make(2, 1e-5);
  const std::vector<at::Tensor> constants = {batch.log_prob_old, batch.log_prob_ref, batch.advantage,
                                             batch.reward,       batch.step_std,     batch.step_size};
  for (at::Tensor tensor : constants) tensor.requires_grad_();
  batch.log_prob.requires_grad_();
  trajectory_loss(*GetParam(), batch, online_params(name())).backward();
  EXPECT_TRUE(batch.log_prob.grad().defined());
  for (const at::Tensor& tensor : constants) EXPECT_FALSE(tensor.grad().defined());
}

TEST_P(TrajectoryObjectives, RefuseABatchWithoutWhatTheyNeed) {
  const std::map<TrajectoryInput, at::Tensor TrajectoryBatch::*> members = {
      {TrajectoryInput::kLogProbOld, &TrajectoryBatch::log_prob_old},
      {TrajectoryInput::kLogProbRef, &TrajectoryBatch::log_prob_ref},
      {TrajectoryInput::kAdvantage, &TrajectoryBatch::advantage},
      {TrajectoryInput::kReward, &TrajectoryBatch::reward},
      {TrajectoryInput::kKl, &TrajectoryBatch::kl},
      {TrajectoryInput::kKlOld, &TrajectoryBatch::kl_old},
      {TrajectoryInput::kStepStd, &TrajectoryBatch::step_std},
      {TrajectoryInput::kStepSize, &TrajectoryBatch::step_size}};
  for (const auto& [input, member] : members) {
    TrajectoryBatch batch = make(2, 1e-3);
    batch.*member = at::Tensor();
    const auto& needs = GetParam()->needs;
    if (std::find(needs.begin(), needs.end(), input) == needs.end()) {
      EXPECT_NO_THROW(online_loss(name(), batch)) << name();
    } else {
      EXPECT_THROW(online_loss(name(), batch), Error) << name();
    }
    batch.*member = at::ones({1, 7});
    EXPECT_THROW(online_loss(name(), batch), Error) << name();
  }
  TrajectoryBatch batch = make(2, 1e-3);
  batch.log_prob = batch.log_prob.to(at::kBFloat16);
  EXPECT_THROW(online_loss(name(), batch), Error);
}

std::vector<const OnlineObjective*> on_trajectories() {
  std::vector<const OnlineObjective*> some;
  for (const OnlineObjective& objective : online_objectives()) {
    if (std::holds_alternative<TrajectoryLoss>(objective.group_loss)) some.push_back(&objective);
  }
  return some;
}

std::string test_name(const testing::TestParamInfo<const OnlineObjective*>& info) {
  std::string name = info.param->info.name;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Online, TrajectoryObjectives, testing::ValuesIn(on_trajectories()), test_name);

TEST(OnlineRegistry, RowsAreCompleteAndTheirNamesAreNotTaken) {
  std::set<std::string> names;
  for (const Objective& objective : objectives()) names.insert(objective.info.name);
  for (const OnlineObjective& objective : online_objectives()) {
    const ObjectiveInfo& info = objective.info;
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_EQ(info.data, DataKind::kOnline) << info.name;
    EXPECT_FALSE(info.paper.empty() || info.summary.empty()) << info.name;
    EXPECT_NO_THROW(online_params(info.name));
  }
}

TEST(OnlineRegistry, RefusesTrajectoriesForOtherKinds) {
  EXPECT_THROW(online_loss("longalign", make_trajectories(1, 2, 1, 0)), Error);
}

}  // namespace
}  // namespace prefusion::losses

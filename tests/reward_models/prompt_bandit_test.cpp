#include "reward_models/prompt_bandit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "core/rng.h"
#include "tests/core/expect_error.h"

namespace prefusion::reward_models {
namespace {

using tests::error_message;
using tests::mentions;

at::Tensor random_rows(int64_t count, int64_t width, uint64_t seed) {
  return philox_randn({count, width}, {.seed = seed}, RandomPurpose::kOther).to(at::kDouble);
}

// Two prompts lie at 1 and -1, so that their difference is 2: the weight solves w = 2 (1 - sigmoid(2 w)).
TEST(PromptBandit, OneWonDuelMovesTheScoresAsFarAsThePriorAllows) {
  PromptBandit bandit(at::tensor({5.0, 3.0}, at::kDouble).unsqueeze(1), {});
  bandit.add({.first = 0, .second = 1, .outcome = 1});
  const double weight = bandit.means()[0].item<double>();
  EXPECT_NEAR(weight, 2 / (1 + std::exp(2 * weight)), 1e-12);
  EXPECT_EQ(bandit.means()[1].item<double>(), -bandit.means()[0].item<double>());
  EXPECT_EQ(bandit.best(), 0);
}

TEST(PromptBandit, AsksForWhatItHasNotSeen) {
  // Three corners of a triangle; after many draws between the first two nothing is known of the third.
  PromptBandit bandit(at::tensor({0.0, 0.0, 1.0, 0.0, 0.0, 1.0}, at::kDouble).view({3, 2}), {});
  for (int i = 0; i < 20; ++i) bandit.add({.first = 0, .second = 1, .outcome = 0.5});
  EXPECT_EQ(bandit.next().second, 2);
  const at::Tensor deviations = bandit.deviations();
  EXPECT_LT(deviations[0].item<double>(), deviations[2].item<double>());
  EXPECT_LT(deviations[1].item<double>(), deviations[2].item<double>());
}

TEST(PromptBandit, WithoutExplorationComparesTheTwoBest) {
  PromptBandit bandit(random_rows(20, 4, 1), {.exploration = 0});
  for (int64_t i = 0; i < 10; ++i) bandit.add({.first = i, .second = i + 10, .outcome = 1});
  EXPECT_EQ(bandit.next().first, bandit.ranking()[0]);
  EXPECT_EQ(bandit.next().second, bandit.ranking()[1]);
}

TEST(PromptBandit, DoesNotCareWhenOrInWhichPiecesDuelsCame) {
  const at::Tensor rows = random_rows(15, 30, 2);
  std::vector<Duel> duels;
  for (int64_t i = 0; i < 12; ++i) duels.push_back({.first = i, .second = (i * 4 + 1) % 15, .outcome = i % 3 / 2.0});
  PromptBandit at_once(rows, {});
  at_once.add(duels);
  PromptBandit one_by_one(rows, {});
  for (const Duel& duel : duels) one_by_one.add(duel);
  EXPECT_TRUE(at::equal(at_once.means(), one_by_one.means()));
  EXPECT_TRUE(at::equal(at_once.deviations(), one_by_one.deviations()));
  EXPECT_EQ(at_once.next().second, one_by_one.next().second);
}

TEST(PromptBandit, DoesNotCareAboutTheScaleOfFeatures) {
  const at::Tensor rows = random_rows(8, 3, 3);
  PromptBandit plain(rows, {});
  PromptBandit stretched(rows * 1e4 + 77, {});
  for (int64_t i = 0; i < 7; ++i) {
    plain.add({.first = i, .second = i + 1, .outcome = 1});
    stretched.add({.first = i, .second = i + 1, .outcome = 1});
  }
  EXPECT_TRUE(at::allclose(plain.means(), stretched.means(), 1e-8, 1e-8));
}

// How much better the best prompt is than the one the bandit would choose after 0, 4 and 40 duels with noisy verdicts,
// mean over worlds.
std::array<double, 3> regrets(double exploration) {
  constexpr std::array kDuels = {0, 4, 40};
  constexpr int kWorlds = 8;
  std::array<double, 3> sums = {};
  for (uint64_t world = 0; world < kWorlds; ++world) {
    const at::Tensor rows = random_rows(60, 8, 100 + world);
    const at::Tensor truth = rows.mv(random_rows(1, 8, 200 + world)[0]);
    PromptBandit bandit(rows, {.exploration = exploration});
    CounterRng verdicts({.seed = 300 + world}, RandomPurpose::kOther);
    for (size_t part = 0; part < kDuels.size(); ++part) {
      while (bandit.duels().size() < static_cast<size_t>(kDuels[part])) {
        Duel duel = bandit.next();
        const double gap = (truth[duel.first] - truth[duel.second]).item<double>();
        duel.outcome = verdicts.uniform() < 1 / (1 + std::exp(-gap)) ? 1 : 0;
        bandit.add(duel);
      }
      sums[part] += (truth.max() - truth[bandit.best()]).item<double>() / kWorlds;
    }
  }
  return sums;
}

TEST(PromptBandit, RegretFallsWithDuelsFarFewerThanPairs) {
  const auto [start, few, more] = regrets(2);  // of 1770 pairs
  EXPECT_LT(few, 0.5 * start) << start << ' ' << few << ' ' << more;
  EXPECT_LT(more, 0.3 * few) << start << ' ' << few << ' ' << more;
  EXPECT_LT(more, regrets(0)[2]);  // choosing the two best alone is worse
}

TEST(PromptBandit, RefusesWhatIsNoContest) {
  PromptBandit bandit(random_rows(3, 2, 4), {});
  for (const Duel& duel : {Duel{0, 0, 1}, Duel{0, 3, 1}, Duel{-1, 1, 1}, Duel{0, 1, 1.5}, Duel{0, 1, NAN}}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { bandit.add(duel); }), "duel"));
  }
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kUsage, [] { PromptBandit(random_rows(1, 2, 4), {}); }), "two prompts"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage,
                                     [] {
                                       PromptBandit(at::full({3, 2}, 0.1, at::kFloat), {});
                                     }),
                       "same features"));
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kUsage, [] { PromptBandit(random_rows(3, 2, 4), {.ridge = 0}); }), "ridge"));
}

}  // namespace
}  // namespace prefusion::reward_models

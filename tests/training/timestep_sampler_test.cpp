#include "training/timestep_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"

namespace prefusion::training {
namespace {

constexpr int64_t kTimesteps = 1000;
constexpr int kDraws = 20000;

std::vector<int64_t> draws(const std::string& sampling, const std::string& range = "", int count = kDraws) {
  const auto sampler = TimestepSampler::parse(sampling, range, kTimesteps);
  std::vector<int64_t> timesteps;
  for (int i = 0; i < count; ++i) timesteps.push_back(sampler.draw({7, static_cast<uint64_t>(i), 3}));
  return timesteps;
}

// Share of the draws below `bound`.
double share_below(const std::vector<int64_t>& timesteps, int64_t bound) {
  return static_cast<double>(std::count_if(timesteps.begin(), timesteps.end(), [&](int64_t t) { return t < bound; })) /
         static_cast<double>(timesteps.size());
}

double normal_cdf(double x) {
  return 0.5 * std::erfc(-x / std::sqrt(2.0));
}

TEST(TimestepSampler, UniformIsTheDrawOfTheKeyAlone) {
  const auto sampler = TimestepSampler::parse("uniform", "", kTimesteps);
  const DrawKey key{1, 2, 3};
  EXPECT_EQ(sampler.draw(key), CounterRng(key, RandomPurpose::kTimestep).below(kTimesteps));
  const auto timesteps = draws("uniform");
  for (const int64_t bound : {100, 500, 900}) EXPECT_NEAR(share_below(timesteps, bound), bound / 1000.0, 0.015);
}

TEST(TimestepSampler, LogitNormalHasItsDistribution) {
  const auto standard = draws("logit-normal");
  const auto shifted = draws("logit-normal:-0.7,0.5");
  for (const int64_t bound : {100, 300, 500, 800}) {
    const double u = static_cast<double>(bound) / kTimesteps;
    const double logit = std::log(u / (1 - u));
    EXPECT_NEAR(share_below(standard, bound), normal_cdf(logit), 0.015) << bound;
    EXPECT_NEAR(share_below(shifted, bound), normal_cdf((logit + 0.7) / 0.5), 0.015) << bound;
  }
}

TEST(TimestepSampler, ModeWithScaleZeroIsUniformAndElseFavoursTheMiddle) {
  EXPECT_NEAR(share_below(draws("mode:0"), 300), 0.3, 0.015);
  const auto timesteps = draws("mode");
  // The density at u is 1 / |du/dv|: at the middle (v = u = 1/2) 1 / (1 + s - s pi / 2) = 3.79 for s = 1.29.
  const double middle = share_below(timesteps, 510) - share_below(timesteps, 490);
  EXPECT_NEAR(middle / 0.02, 1.0 / (1 + 1.29 - 1.29 * M_PI / 2), 0.35);
}

TEST(TimestepSampler, RangeBoundsEveryDraw) {
  for (const char* sampling : {"uniform", "logit-normal:3,2", "mode:1.5"}) {
    const auto timesteps = draws(sampling, "200:300");
    EXPECT_EQ(*std::min_element(timesteps.begin(), timesteps.end()) >= 200, true) << sampling;
    EXPECT_EQ(*std::max_element(timesteps.begin(), timesteps.end()), 299) << sampling;
  }
}

TEST(TimestepSampler, ListDrawsEachEntryEquallyOften) {
  std::map<int64_t, int> counts;
  for (const int64_t t : draws("list:801,694,548,338")) ++counts[t];
  ASSERT_EQ(counts.size(), 4u);
  for (const auto& [t, count] : counts) EXPECT_NEAR(count, kDraws / 4, 250) << t;
}

TEST(TimestepSampler, OtherTextsAreUsageErrors) {
  const auto refuses = [](const std::string& sampling, const std::string& range) {
    try {
      TimestepSampler::parse(sampling, range, kTimesteps);
      ADD_FAILURE() << sampling << " " << range << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 2);
    }
  };
  for (const char* text : {"", "gaussian", "uniform:1", "logit-normal:1", "logit-normal:0,0", "mode:2", "mode:-3",
                           "list", "list:", "list:5,1000", "list:1.5", "list:x"}) {
    refuses(text, "");
  }
  for (const char* text : {"5", "5:5", "9:5", "-1:5", "0:1001", "a:b", "1:2:3"}) refuses("uniform", text);
  refuses("list:5", "0:10");
}

}  // namespace
}  // namespace prefusion::training

#include "training/online/sample_groups.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace prefusion::training {
namespace {

using losses::DataKind;
using Labels = std::vector<float>;
using Positions = std::vector<int64_t>;

// Three prompts of four samples; nothing can be learnt from the second.
at::Tensor rewards() {
  return at::tensor({0.5F, 2.0F, -1.0F, 2.0F, 3.0F, 3.0F, 3.0F, 3.0F, 0.0F, 1.0F, 2.0F, 3.0F}).view({3, 4});
}

TEST(SampleGroups, PairIsTheBestAndTheWorstSample) {
  const auto groups = plan_sample_groups(DataKind::kPair, rewards());
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].prompt, 0);
  EXPECT_EQ(groups[0].samples, Positions({1, 2}));  // the first of equals
  EXPECT_EQ(groups[0].labels, Labels({1, 0}));
  EXPECT_EQ(groups[1].prompt, 2);
  EXPECT_EQ(groups[1].samples, Positions({3, 0}));
}

TEST(SampleGroups, ListHasEverySampleWithTheShareItBeats) {
  const auto groups = plan_sample_groups(DataKind::kList, rewards());
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].samples, Positions({1, 3, 0, 2}));
  EXPECT_EQ(groups[0].labels, Labels({2.0F / 3, 2.0F / 3, 1.0F / 3, 0}));
  EXPECT_EQ(groups[1].samples, Positions({3, 2, 1, 0}));
  EXPECT_EQ(groups[1].labels, Labels({1, 2.0F / 3, 1.0F / 3, 0}));
}

TEST(SampleGroups, PicturesAreTheBestAndWhereLabelsAreAskedForTheWorst) {
  const auto best = plan_sample_groups(DataKind::kSingle, rewards());
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[1].samples, Positions({3}));
  const auto both = plan_sample_groups(DataKind::kUnpaired, rewards());
  ASSERT_EQ(both.size(), 5u);  // two are the best of the first prompt
  EXPECT_EQ(both[0].samples, Positions({1}));
  EXPECT_EQ(both[1].samples, Positions({3}));
  EXPECT_EQ(both[1].labels, Labels({1}));
  EXPECT_EQ(both[2].samples, Positions({2}));
  EXPECT_EQ(both[2].labels, Labels({0}));
  EXPECT_EQ(both[3].samples, Positions({3}));
  EXPECT_EQ(both[4].samples, Positions({0}));
  EXPECT_EQ(both[4].labels, Labels({0}));
}

TEST(SampleGroups, EqualSamplesTeachNothing) {
  for (const DataKind kind : {DataKind::kPair, DataKind::kList, DataKind::kSingle, DataKind::kUnpaired}) {
    EXPECT_TRUE(plan_sample_groups(kind, at::ones({3, 5})).empty());
  }
}

}  // namespace
}  // namespace prefusion::training

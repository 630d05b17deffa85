#include "data/filters/convert.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/data/filters/make_groups.h"

namespace prefusion::data::filters {
namespace {

using tests::GroupSetMaker;
using Values = std::vector<double>;

// The items of a group by their number in the row.
std::vector<int> items_of(const Group& group) {
  std::vector<int> items;
  for (const Item& item : group.items) items.push_back(item.item);
  return items;
}

Values labels_of(const Group& group) {
  Values labels;
  for (const Item& item : group.items) labels.push_back(item.label);
  return labels;
}

Values ranks_of(const Group& group) {
  Values ranks;
  for (const Item& item : group.items) ranks.push_back(item.rank);
  return ranks;
}

TEST(ToPairs, TakesEveryTwoOfAListInTheDatasOrder) {
  GroupSetMaker maker;
  maker.add("p", {2, 7, 5});
  const Conversion made = to_pairs(maker.set().groups, PairRule::kAll, false);
  ASSERT_EQ(made.groups.size(), 3u);
  EXPECT_EQ(items_of(made.groups[0]), (std::vector<int>{1, 2}));  // best with second
  EXPECT_EQ(labels_of(made.groups[0]), (Values{1, 0}));
  EXPECT_EQ(items_of(made.groups[1]), (std::vector<int>{0, 1}));  // best with worst
  EXPECT_EQ(labels_of(made.groups[1]), (Values{0, 1}));
  EXPECT_EQ(items_of(made.groups[2]), (std::vector<int>{0, 2}));
  EXPECT_EQ(labels_of(made.groups[2]), (Values{0, 1}));
}

TEST(ToPairs, TakesNeighboursOrTheExtremes) {
  GroupSetMaker maker;
  maker.add("p", {2, 7, 5, 1});
  const Conversion adjacent = to_pairs(maker.set().groups, PairRule::kAdjacent, false);
  ASSERT_EQ(adjacent.groups.size(), 3u);
  EXPECT_EQ(items_of(adjacent.groups[2]), (std::vector<int>{0, 3}));
  const Conversion extremes = to_pairs(maker.set().groups, PairRule::kBestWorst, false);
  ASSERT_EQ(extremes.groups.size(), 1u);
  EXPECT_EQ(items_of(extremes.groups[0]), (std::vector<int>{1, 3}));
  EXPECT_EQ(extremes.unused, 2);
}

TEST(ToPairs, DropsTiesOrKeepsThemAsHalves) {
  GroupSetMaker maker;
  maker.add("p", {3, 3, 1});
  const Conversion dropped = to_pairs(maker.set().groups, PairRule::kAll, false);
  EXPECT_EQ(dropped.groups.size(), 2u);
  EXPECT_EQ(dropped.ties, 1);
  const Conversion kept = to_pairs(maker.set().groups, PairRule::kAll, true);
  ASSERT_EQ(kept.groups.size(), 3u);
  EXPECT_EQ(labels_of(kept.groups[0]), (Values{0.5, 0.5}));
}

TEST(ToPairs, LeavesPairsWithTheirProbabilities) {
  GroupSetMaker maker;
  maker.add("p", {0.3, 0.7}).by("ann").add("q", {1});
  const Conversion made = to_pairs(maker.set().groups, PairRule::kAll, false);
  ASSERT_EQ(made.groups.size(), 1u);
  EXPECT_EQ(labels_of(made.groups[0]), (Values{0.3, 0.7}));
  EXPECT_EQ(ranks_of(made.groups[0]), (Values{1, 0}));
  EXPECT_EQ(maker.set().user(made.groups[0]), "ann");
  EXPECT_EQ(made.too_short, 1);
}

// a beats b twice and c once, b and c are a tie: shares 1, (0 + 0 + 1/2) / 3, (0 + 1/2) / 2.
TEST(ToLists, JoinsPairsOfAPromptByTheirWinShares) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).showing({"a", "b"});
  maker.add("p", {0, 1}).showing({"b", "a"});
  maker.add("p", {0, 1}).showing({"c", "a"});
  maker.add("p", {0.5, 0.5}).showing({"b", "c"});
  const Conversion made = to_lists(maker.set(), maker.set().groups);
  ASSERT_EQ(made.groups.size(), 1u);
  const Values labels = labels_of(made.groups[0]);
  ASSERT_EQ(labels.size(), 3u);
  EXPECT_DOUBLE_EQ(labels[0], 1);
  EXPECT_DOUBLE_EQ(labels[1], 0.5 / 3);
  EXPECT_DOUBLE_EQ(labels[2], 0.25);
  EXPECT_EQ(ranks_of(made.groups[0]), (Values{0, 2, 1}));
}

TEST(ToLists, JoinsNothingAcrossPromptsOrWithoutASharedPicture) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).showing({"a", "b"}).add("q", {1, 0}).showing({"b", "c"});
  maker.add("p", {1, 0}).showing({"c", "d"}).add("p", {1, 0}).showing({"e", "e"});
  const Conversion made = to_lists(maker.set(), maker.set().groups);
  EXPECT_EQ(made.groups.size(), 3u);
  EXPECT_EQ(made.same_picture, 1);
}

TEST(ToLists, KeepTheUserOnlyWhereItIsOne) {
  GroupSetMaker maker;
  maker.add("p", {1, 0}).showing({"a", "b"}).by("ann").add("p", {1, 0}).showing({"b", "c"}).by("ann");
  maker.add("q", {1, 0}).showing({"a", "b"}).by("ann").add("q", {1, 0}).showing({"b", "c"}).by("bob");
  maker.set().groups[0].weight = 1;
  maker.set().groups[1].weight = 3;
  const Conversion made = to_lists(maker.set(), maker.set().groups);
  ASSERT_EQ(made.groups.size(), 2u);
  EXPECT_EQ(maker.set().user(made.groups[0]), "ann");
  EXPECT_EQ(made.groups[0].weight, 2);
  EXPECT_EQ(maker.set().user(made.groups[1]), "");
  EXPECT_TRUE(std::isnan(made.groups[1].weight));
}

TEST(ToUnpaired, TakesTheBestAndTheWorst) {
  GroupSetMaker maker;
  maker.add("p", {2, 7, 5, 7}).add("q", {1, 1}).add("r", {0});
  const Conversion made = to_unpaired(maker.set(), maker.set().groups, std::nullopt, false);
  ASSERT_EQ(made.groups.size(), 4u);
  EXPECT_EQ(labels_of(made.groups[0]), (Values{0}));
  EXPECT_EQ(labels_of(made.groups[1]), (Values{1}));
  EXPECT_EQ(labels_of(made.groups[2]), (Values{1}));
  EXPECT_EQ(labels_of(made.groups[3]), (Values{0}));  // as it was
  EXPECT_EQ(made.unused, 1);
  EXPECT_EQ(made.ties, 1);
  EXPECT_EQ(to_unpaired(maker.set(), maker.set().groups, std::nullopt, true).groups.size(), 6u);
}

TEST(ToUnpaired, GoesByAThresholdOfAScore) {
  GroupSetMaker maker({"aes"});
  maker.add("p", {1, 0}, {{4.9}, {5.0}}).add("q", {1, 0}, {{kMissing}, {6}});
  const Conversion made = to_unpaired(maker.set(), maker.set().groups, Threshold{.score = "aes", .value = 5}, false);
  ASSERT_EQ(made.groups.size(), 3u);
  EXPECT_EQ(labels_of(made.groups[0]), (Values{0}));
  EXPECT_EQ(labels_of(made.groups[1]), (Values{1}));
  EXPECT_EQ(made.unused, 1);
}

}  // namespace
}  // namespace prefusion::data::filters

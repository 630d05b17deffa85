#include "training/group_order.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/training/fake_groups.h"

namespace prefusion::training {
namespace {

using Chunks = std::vector<int64_t>;

std::shared_ptr<tests::FakeGroups> groups(size_t count) {
  return std::make_shared<tests::FakeGroups>(std::vector<double>(count, 1.0));
}

GroupOrder order_of(const Chunks& chunks, int64_t num_positions) {
  return {groups(chunks.size()), /*seed=*/3, chunks, num_positions};
}

TEST(GroupOrder, IsEpochAfterEpochWithoutACurriculum) {
  const auto dataset = groups(7);
  GroupOrder order(dataset, 3, Chunks(7, 0), 20);
  for (int64_t position = 0; position < 30; ++position) {
    const GroupRef group = order.at(position);
    EXPECT_EQ(group.draw, static_cast<uint64_t>(position / 7));
    EXPECT_EQ(group.item, dataset->epoch_order(3, group.draw)[static_cast<size_t>(position % 7)]);
  }
}

TEST(GroupOrder, StagesOfEqualLengthDrawFromMoreAndMoreChunks) {
  const Chunks chunks = {2, 0, 1, 0, 2, 1, 0};  // 3, 2 and 2 groups
  GroupOrder order = order_of(chunks, 30);
  std::vector<std::set<int64_t>> seen(3);
  for (int64_t position = 0; position < 30; ++position) seen[position / 10].insert(order.at(position).item);
  EXPECT_EQ(seen[0], (std::set<int64_t>{1, 3, 6}));
  EXPECT_EQ(seen[1], (std::set<int64_t>{1, 2, 3, 5, 6}));
  EXPECT_EQ(seen[2].size(), 7u);
  for (int64_t position = 30; position < 37; ++position) seen[0].insert(order.at(position).item);
  EXPECT_EQ(seen[0].size(), 7u);  // after the end the last stage goes on
}

TEST(GroupOrder, NoDrawOfAGroupComesTwice) {
  for (const int64_t num_positions : {3, 10, 29, 30, 100}) {
    GroupOrder order = order_of({2, 0, 1, 0, 2, 1, 0}, num_positions);
    std::set<std::pair<int64_t, uint64_t>> seen;
    for (int64_t position = 0; position < num_positions + 20; ++position) {
      const GroupRef group = order.at(position);
      EXPECT_TRUE(seen.insert({group.item, group.draw}).second) << num_positions << ' ' << position;
    }
  }
}

TEST(GroupOrder, IsTheSameFromAnyPositionOn) {
  GroupOrder whole = order_of({2, 0, 1, 0, 2, 1, 0}, 40);
  for (int64_t begin = 0; begin < 40; ++begin) {
    GroupOrder resumed = order_of({2, 0, 1, 0, 2, 1, 0}, 40);
    for (int64_t position = begin; position < 50; ++position) {
      const GroupRef expected = whole.at(position);
      const GroupRef found = resumed.at(position);
      ASSERT_EQ(found.item, expected.item);
      ASSERT_EQ(found.draw, expected.draw);
    }
  }
}

TEST(GroupOrder, ItemsUntilAreThoseOfThePositions) {
  for (const Chunks& chunks : {Chunks{2, 0, 1, 0, 2, 1, 0}, Chunks(7, 0)}) {
    for (int64_t end = 0; end < 60; ++end) {
      GroupOrder order = order_of(chunks, 40);
      std::set<int64_t> expected;
      for (int64_t position = 0; position < end; ++position) expected.insert(order.at(position).item);
      EXPECT_EQ(order_of(chunks, 40).items_until(end), Chunks(expected.begin(), expected.end())) << end;
    }
  }
}

TEST(GroupOrder, UsesDrawsInTurnWhereThereAreFew) {
  const auto dataset = groups(4);
  GroupOrder few(dataset, 3, Chunks(4, 0), 24, /*num_draws=*/2);
  GroupOrder endless(dataset, 3, Chunks(4, 0), 24);
  for (int64_t position = 0; position < 24; ++position) {
    EXPECT_EQ(few.at(position).item, endless.at(position).item);  // every pass has an order of its own all the same
    EXPECT_EQ(endless.at(position).draw, static_cast<uint64_t>(position / 4));
    EXPECT_EQ(few.at(position).draw, static_cast<uint64_t>(position / 4 % 2));
  }
}

}  // namespace
}  // namespace prefusion::training

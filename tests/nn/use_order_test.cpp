#include "nn/use_order.h"

#include <gtest/gtest.h>

namespace prefusion::nn {
namespace {

void use(UseOrder& order, const std::vector<size_t>& ids) {
  for (const size_t id : ids) order.used(id);
}

using Ids = std::vector<size_t>;

TEST(UseOrder, KnowsNothingAtFirst) {
  UseOrder order;
  EXPECT_EQ(order.next(3), Ids());
  order.used(4);
  EXPECT_EQ(order.next(3), Ids());
}

TEST(UseOrder, FollowsThePassBefore) {
  UseOrder order;
  use(order, {0, 1, 2, 3, 0, 1});
  EXPECT_EQ(order.next(2), Ids({2, 3}));
  EXPECT_EQ(order.next(3), Ids({2, 3, 0}));
}

TEST(UseOrder, TellsForwardFromBackward) {
  UseOrder order;
  const Ids step = {0, 1, 2, 3, 3, 2, 1, 0};
  use(order, step);
  use(order, {0, 1, 2});
  EXPECT_EQ(order.next(2), Ids({3, 3}));
  use(order, {3, 3, 2});
  EXPECT_EQ(order.next(2), Ids({1, 0}));
}

TEST(UseOrder, LearnsAnotherWay) {
  UseOrder order;
  use(order, {0, 1, 2, 0, 1, 5, 0, 1});
  EXPECT_EQ(order.next(1), Ids({5}));
}

// A pass over the same few again and again must not be followed without end.
TEST(UseOrder, AnswersWithNoMoreThanItIsAskedFor) {
  UseOrder order;
  use(order, {7, 7, 7});
  EXPECT_EQ(order.next(4), Ids({7, 7, 7, 7}));
}

}  // namespace
}  // namespace prefusion::nn

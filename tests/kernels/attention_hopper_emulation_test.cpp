// The arithmetic of the attention for sm_90, run by an emulated block: phases of barriers, boxes, the swizzled layout,
// descriptors, who owns which rows. What is not tested here are the instructions themselves.
#include <gtest/gtest.h>

#include "tests/kernels/attention_problem.h"
#include "tests/kernels/emulated_hopper_warp.h"

namespace prefusion::kernels::hopper {
namespace {

using blockwise::Problem;

template <typename Shape, typename Element>
void check(const Problem& problem, Arrival arrival, double spread = 1.0) {
  SCOPED_TRACE(testing::Message() << problem.queries << " queries, " << problem.keys << " keys, heads of "
                                  << Shape::kHeadSize << ", tiles of " << Shape::kTileRows);
  const blockwise::AttentionProblem<Element> tensors(problem, Shape::kHeadSize, spread);
  const auto map = [&](const blockwise::Guarded& guarded, int64_t rows, int box_rows) {
    return EmulatedMap<Element>{tensors.data(guarded), guarded.layout(), Shape::kHeadSize, static_cast<int>(rows),
                                box_rows};
  };
  const HopperArgs<Element, EmulatedMap<Element>> args{
      tensors.args(), map(tensors.query, problem.queries, kBlockQueries),
      map(tensors.key, problem.keys, Shape::kTileRows), map(tensors.value, problem.keys, Shape::kTileRows)};
  for (int batch = 0; batch < problem.batch; ++batch) {
    for (int head = 0; head < problem.heads; ++head) {
      for (int block = 0; block < blockwise::divide_up(problem.queries, kBlockQueries); ++block) {
        EmulatedHopperBlock shared(Shape::kBarriersAt, arrival);
        shared.memory.run([&](int index) {
          EmulatedHopperWarp<Element> warp(shared, index);
          HopperForwardBlock<Shape, Element, EmulatedHopperWarp<Element>>(warp, args, batch, head, block).run();
        });
      }
    }
  }
  tensors.check_forward();
}

template <typename Shape, typename Element>
void check_all(Arrival arrival) {
  for (const Problem& problem : blockwise::kProblems) check<Shape, Element>(problem, arrival);
  // More tiles than stages, and a block that is not full.
  check<Shape, Element>({1, 1, 129, 5 * Shape::kTileRows + 1}, arrival);
}

TEST(AttentionHopperEmulation, EqualsAttentionForEveryHeadSize) {
  check_all<HopperShape<40, 128>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<64, 128>, c10::Half>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<72, 96>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<80, 96>, c10::Half>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<96, 96>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<128, 96>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<160, 64>, c10::BFloat16>(Arrival::kWhenWaitedFor);
}

TEST(AttentionHopperEmulation, TilesOf80KeysTakeAPromptAtOnce) {
  check_all<HopperShape<40, 80>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<HopperShape<64, 80>, c10::BFloat16>(Arrival::kWhenWaitedFor);
}

TEST(AttentionHopperEmulation, BoxesMayArriveAtOnce) {
  check_all<HopperShape<40, 128>, c10::BFloat16>(Arrival::kAtOnce);
  check_all<HopperShape<128, 96>, c10::Half>(Arrival::kAtOnce);
}

TEST(AttentionHopperEmulation, LargeScoresStayFinite) {
  check<HopperShape<64, 128>, c10::BFloat16>({1, 1, 70, 300}, Arrival::kWhenWaitedFor, /*spread=*/8.0);
}

TEST(AttentionHopperEmulation, ChunksOfEightRowsAtOneColumnLieInDifferentBanks) {
  for (uint32_t column = 0; column < 8; ++column) {
    uint32_t banks = 0;
    for (uint32_t row = 0; row < 8; ++row) banks |= 1U << (swizzled(row * kPanelRowBytes + 16 * column) / 16 % 8);
    EXPECT_EQ(banks, 0xffU);
  }
}

}  // namespace
}  // namespace prefusion::kernels::hopper

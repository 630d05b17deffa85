// The arithmetic of the attention for sm_90, run by an emulated block: phases of barriers, boxes, the swizzled layout,
// descriptors, who owns which rows. What is not tested here are the instructions themselves.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/attention/hopper_backward_block.h"
#include "kernels/attention/hopper_forward_block.h"
#include "tests/kernels/attention_problem.h"
#include "tests/kernels/emulated_hopper_warp.h"

namespace prefusion::kernels::hopper {
namespace {

using blockwise::Guarded;
using blockwise::Problem;

// Rows of the tiles of each kind of block.
struct TileRows {
  int forward, query_grad, key_grad;
};
constexpr TileRows launched(int head_size) {
  return {forward_rows(head_size), query_grad_rows(head_size), key_grad_rows(head_size)};
}
constexpr TileRows for_a_prompt(int head_size) {
  return {kPromptKeys, kPromptKeys, key_grad_rows(head_size)};
}

template <int head_size, typename Element, TileRows rows = launched(head_size)>
class Emulation {
  using Warp = EmulatedHopperWarp<Element>;
  template <template <typename, typename, typename> typename Block, int tile_rows>
  using BlockOf = Block<HopperShape<head_size, tile_rows>, Element, Warp>;

 public:
  Emulation(const Problem& problem, Arrival arrival, double spread = 1.0, double offset = 0.0)
      : tensors_(problem, head_size, spread, offset), arrival_(arrival) {}

  void check() {
    run_forward();
    tensors_.check_forward();
    run_backward();
    tensors_.check_backward();
  }

 private:
  EmulatedMap<Element> map(const Guarded& guarded, int box_rows) const {
    return {tensors_.data(guarded), guarded.layout(), head_size, static_cast<int>(guarded.tensor.size(2)), box_rows};
  }

  // Every block of a grid over the rows of `own`.
  template <typename Block>
  void run_blocks(const typename Block::Args& args, const Guarded& own) {
    for (int batch = 0; batch < own.tensor.size(0); ++batch) {
      for (int head = 0; head < own.tensor.size(1); ++head) {
        for (int block = 0; block < blockwise::divide_up(own.tensor.size(2), kBlockRows); ++block) {
          EmulatedHopperBlock shared(Block::Memory::kFloatsAt, Block::Memory::kFloats, arrival_);
          shared.memory.run([&](int index) {
            Warp warp(shared, index);
            Block(warp, args, batch, head, block).run();
          });
        }
      }
    }
  }

  void run_forward() {
    const auto& t = tensors_;
    run_blocks<BlockOf<HopperForwardBlock, rows.forward>>(
        {t.args(), {map(t.query, kBlockRows)}, {map(t.key, rows.forward), map(t.value, rows.forward)}}, t.query);
  }

  void run_backward() {
    const auto attention = tensors_.grad_args();
    const auto& t = tensors_;
    run_blocks<BlockOf<HopperQueryGradBlock, rows.query_grad>>(
        {attention,
         {map(t.query, kBlockRows), map(t.grad_output, kBlockRows)},
         {map(t.key, rows.query_grad), map(t.value, rows.query_grad)}},
        t.query);
    run_blocks<BlockOf<HopperKeyGradBlock, rows.key_grad>>(
        {attention,
         {map(t.key, kBlockRows), map(t.value, kBlockRows)},
         {map(t.query, rows.key_grad), map(t.grad_output, rows.key_grad)}},
        t.key);
  }

  blockwise::AttentionProblem<Element> tensors_;
  Arrival arrival_;
};

template <int head_size, typename Element, TileRows rows = launched(head_size)>
void check(const Problem& problem, Arrival arrival) {
  SCOPED_TRACE(testing::Message() << problem.queries << " queries, " << problem.keys << " keys, heads of "
                                  << head_size);
  Emulation<head_size, Element, rows>(problem, arrival).check();
}

template <int head_size, typename Element, TileRows rows = launched(head_size)>
void check_all(Arrival arrival) {
  for (const Problem& problem : blockwise::kProblems) check<head_size, Element, rows>(problem, arrival);
  // More tiles than two rounds of stages, and a block that is not full.
  check<head_size, Element, rows>({1, 1, 129, 5 * std::max(rows.forward, rows.query_grad) + 1}, arrival);
  check<head_size, Element, rows>({1, 1, 5 * rows.key_grad + 1, 129}, arrival);
}

template <typename Element>
void check_every_head_size(Arrival arrival) {
  check_all<40, Element>(arrival);
  check_all<64, Element>(arrival);
  check_all<72, Element>(arrival);
  check_all<80, Element>(arrival);
  check_all<96, Element>(arrival);
  check_all<128, Element>(arrival);
  check_all<160, Element>(arrival);
}

TEST(AttentionHopperEmulation, EqualsAttentionForEveryHeadSize) {
  check_every_head_size<c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_every_head_size<c10::Half>(Arrival::kWhenWaitedFor);
}

TEST(AttentionHopperEmulation, BoxesMayArriveAtOnce) {
  check_every_head_size<c10::BFloat16>(Arrival::kAtOnce);
  check_every_head_size<c10::Half>(Arrival::kAtOnce);
}

TEST(AttentionHopperEmulation, TilesOf80KeysTakeAPromptAtOnce) {
  check_all<40, c10::BFloat16, for_a_prompt(40)>(Arrival::kWhenWaitedFor);
  check_all<64, c10::BFloat16, for_a_prompt(64)>(Arrival::kWhenWaitedFor);
}

TEST(AttentionHopperEmulation, LargeScoresStayFinite) {
  Emulation<64, c10::BFloat16>({1, 1, 70, 300}, Arrival::kWhenWaitedFor, /*spread=*/8.0).check();
}

TEST(AttentionHopperEmulation, MissingKeysHaveNoWeightBesideVerySmallScores) {
  // A sum of exponentials is 2^-180: that of a missing key's score, which is zero, would be infinite beside it.
  Emulation<64, c10::BFloat16>({1, 1, 17, 70}, Arrival::kWhenWaitedFor, /*spread=*/0.5, /*offset=*/4.0).check();
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

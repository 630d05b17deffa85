// The arithmetic of kernels/attention, run by an emulated block: fragments, masks, the running softmax, what is copied
// and stored where. An emulated block runs what the GPU runs but for the instructions themselves.
#include <gtest/gtest.h>

#include "kernels/attention/backward_block.h"
#include "kernels/attention/forward_block.h"
#include "tests/kernels/attention_problem.h"
#include "tests/kernels/emulated_warp.h"

namespace prefusion::kernels::blockwise {
namespace {

template <typename Shape, typename Element>
class Emulation {
 public:
  Emulation(const Problem& problem, Arrival arrival, double spread = 1.0, double offset = 0.0)
      : tensors_(problem, Shape::kHeadSize, spread, offset), arrival_(arrival) {}

  void check() {
    run_forward();
    tensors_.check_forward();
    run_backward();
    tensors_.check_backward();
  }

 private:
  // Every block of a grid over `rows` rows of every head.
  template <typename Block, typename Args>
  void run_blocks(const Args& args, int64_t rows, int num_elements, int num_floats) {
    const Problem& problem = tensors_.sizes();
    for (int64_t batch = 0; batch < problem.batch; ++batch) {
      for (int64_t head = 0; head < problem.heads; ++head) {
        for (int block = 0; block < divide_up(rows, kBlockRows); ++block) {
          EmulatedBlock shared(num_elements, num_floats, arrival_);
          shared.run([&](int index) {
            EmulatedWarp warp(shared, index);
            Block(warp, args, batch, head, block).run();
          });
        }
      }
    }
  }

  void run_forward() {
    run_blocks<ForwardBlock<Shape, Element, EmulatedWarp>>(tensors_.args(), tensors_.sizes().queries,
                                                           Shape::kForwardElements, 0);
  }

  void run_backward() {
    const auto args = tensors_.grad_args();
    constexpr int kFloats = kStages * 2 * Shape::kTileRows;
    run_blocks<QueryGradBlock<Shape, Element, EmulatedWarp>>(args, tensors_.sizes().queries, Shape::kBackwardElements,
                                                             kFloats);
    run_blocks<KeyGradBlock<Shape, Element, EmulatedWarp>>(args, tensors_.sizes().keys, Shape::kBackwardElements,
                                                           kFloats);
  }

  AttentionProblem<Element> tensors_;
  Arrival arrival_;
};

template <typename Shape, typename Element>
void check_all(Arrival arrival) {
  for (const Problem& problem : kProblems) {
    SCOPED_TRACE(testing::Message() << problem.queries << " queries, " << problem.keys << " keys, heads of "
                                    << Shape::kHeadSize);
    Emulation<Shape, Element>(problem, arrival).check();
  }
}

TEST(AttentionEmulation, EqualsAttentionForEveryHeadSize) {
  check_all<BlockShape<40, 64>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<64, 64>, c10::Half>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<72, 64>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<80, 32>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<96, 32>, c10::Half>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<128, 32>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<160, 32>, c10::BFloat16>(Arrival::kWhenWaitedFor);
}

TEST(AttentionEmulation, TilesOf80KeysTakeAPromptAtOnce) {
  check_all<BlockShape<40, 80>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<64, 80>, c10::BFloat16>(Arrival::kWhenWaitedFor);
}

TEST(AttentionEmulation, CopiesMayArriveAtOnce) {
  check_all<BlockShape<40, 64>, c10::BFloat16>(Arrival::kAtOnce);
  check_all<BlockShape<64, 32>, c10::Half>(Arrival::kAtOnce);
}

TEST(AttentionEmulation, LargeScoresStayFinite) {
  // Scores of hundreds: the softmax is nearly one-hot, and a sum relative to anything but the row's largest overflows.
  Emulation<BlockShape<64, 64>, c10::BFloat16>({1, 1, 70, 130}, Arrival::kWhenWaitedFor, /*spread=*/8.0).check();
}

TEST(AttentionEmulation, MissingKeysHaveNoWeightBesideVerySmallScores) {
  // A sum of exponentials is 2^-180: that of a missing key's score, which is zero, would be infinite beside it.
  Emulation<BlockShape<64, 64>, c10::BFloat16>({1, 1, 17, 70}, Arrival::kWhenWaitedFor, /*spread=*/0.5, /*offset=*/4.0)
      .check();
}

TEST(AttentionEmulation, QueriesThatDoNotExistHaveNoWeight) {
  EmulatedBlock block(0, 0, Arrival::kAtOnce);
  const EmulatedWarp warp(block, 0);
  const auto numbers = load_numbers<EmulatedWarp>(AttentionGradArgs<c10::Half>(), 0, 0, warp.lane(), warp.lane() < 0);
  EmulatedWarp::Float score = 3.0f, grad = 5.0f;
  differentiate<EmulatedWarp>(score, grad, numbers, /*scale_log2=*/1.0f);
  EXPECT_EQ(score.of, EmulatedWarp::Float(0.0f).of);
  EXPECT_EQ(grad.of, EmulatedWarp::Float(0.0f).of);
}

}  // namespace
}  // namespace prefusion::kernels::blockwise

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
  Emulation(const Problem& problem, Arrival arrival, double spread = 1.0)
      : tensors_(problem, Shape::kHeadSize, spread), arrival_(arrival) {}

  void check() {
    run_forward();
    tensors_.check_forward();
    run_backward();
    tensors_.check_backward();
  }

 private:
  AttentionGradArgs<Element> backward_args() {
    AttentionGradArgs<Element> args;
    args.forward = tensors_.args();
    args.grad_output = tensors_.data(tensors_.grad_output);
    args.grad_output_layout = tensors_.grad_output.layout();
    row_product_ =
        (tensors_.output.tensor.to(at::kFloat) * tensors_.grad_output.tensor.to(at::kFloat)).sum(-1).contiguous();
    args.row_product = row_product_.const_data_ptr<float>();
    args.grad_query = tensors_.data(tensors_.grad_query);
    args.grad_key = tensors_.data(tensors_.grad_key);
    args.grad_value = tensors_.data(tensors_.grad_value);
    args.grad_query_layout = tensors_.grad_query.layout();
    args.grad_key_layout = tensors_.grad_key.layout();
    args.grad_value_layout = tensors_.grad_value.layout();
    return args;
  }

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
    const auto args = backward_args();
    constexpr int kFloats = kStages * 2 * Shape::kTileRows;
    run_blocks<QueryGradBlock<Shape, Element, EmulatedWarp>>(args, tensors_.sizes().queries, Shape::kBackwardElements,
                                                             kFloats);
    run_blocks<KeyGradBlock<Shape, Element, EmulatedWarp>>(args, tensors_.sizes().keys, Shape::kBackwardElements,
                                                           kFloats);
  }

  AttentionProblem<Element> tensors_;
  Arrival arrival_;
  at::Tensor row_product_;
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

}  // namespace
}  // namespace prefusion::kernels::blockwise

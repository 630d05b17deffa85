#include "core/flop_counter.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace prefusion {
namespace {

TEST(FlopCounter, CountsTwoOperationsAMultiplyAddAndNothingElse) {
  const at::Tensor left = at::ones({3, 5}), right = at::ones({5, 7});
  FlopCounter counter;
  at::softmax(left.add(1), 1).sqrt();
  EXPECT_EQ(counter.total(), 0);
  at::Tensor product = left.mm(right);
  EXPECT_EQ(counter.total(), 2 * 3 * 5 * 7);
  product.addmm_(left, right);
  EXPECT_EQ(counter.total(), 2 * 2 * 3 * 5 * 7);
}

TEST(FlopCounter, CountsFusedAttentionAsItsTwoProductsAndFiveBackward) {
  constexpr int64_t batch = 2, heads = 3, queries = 5, keys = 7, width = 4;
  const at::Tensor query = at::randn({batch, heads, queries, width}).requires_grad_();
  const at::Tensor key = at::randn({batch, heads, keys, width}).requires_grad_();
  const at::Tensor value = at::randn({batch, heads, keys, width}).requires_grad_();
  const int64_t product = 2 * batch * heads * queries * keys * width;
  FlopCounter counter;
  const at::Tensor output = std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(query, key, value));
  EXPECT_EQ(counter.total(), 2 * product);
  output.sum().backward();
  EXPECT_EQ(counter.total(), 7 * product);
}

TEST(FlopCounter, CountsGroupedConvolutionByItsWeights) {
  FlopCounter counter;
  at::conv2d(at::ones({1, 4, 6, 6}), at::ones({8, 2, 3, 3}), {}, 1, 1, 1, /*groups=*/2);
  EXPECT_EQ(counter.total(), 2 * 36 * 8 * 2 * 9);
}

TEST(FlopCounter, NestedCountersAndOtherThreadsCountOnce) {
  const at::Tensor square = at::ones({4, 4});
  FlopCounter outer;
  square.mm(square);
  {
    FlopCounter inner;
    std::thread([&] { square.mm(square); }).join();
    EXPECT_EQ(inner.total(), 128);
  }
  EXPECT_EQ(outer.total(), 256);
}

}  // namespace
}  // namespace prefusion

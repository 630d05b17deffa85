#include "nn/channels_last.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "nn/layers.h"

namespace prefusion::nn {
namespace {

TEST(ChannelsLast, IsNotWhatIsInBothOrders) {
  const at::Tensor picture = philox_randn({2, 3, 4, 5}, DrawKey{7, 1, 0}, RandomPurpose::kOther);
  EXPECT_FALSE(is_channels_last(picture));
  EXPECT_TRUE(is_channels_last(picture.contiguous(at::MemoryFormat::ChannelsLast)));
  EXPECT_FALSE(is_channels_last(picture.transpose(2, 3)));
  EXPECT_FALSE(is_channels_last(picture.slice(1, 0, 1).contiguous(at::MemoryFormat::ChannelsLast)));
  EXPECT_FALSE(is_channels_last(picture.flatten(2)));
}

TEST(ChannelsLast, IsTheFastestOfHalfPrecisionAloneOnAGpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    Conv2d layer(Conv2dOptions{.in_channels = 8, .out_channels = 16});
    init_weights(*layer, make_torch_generator(0));
    layer->to(at::kCUDA, dtype);
    to_fastest_layout(*layer);
    EXPECT_EQ(is_channels_last(layer->weight), dtype != at::kFloat) << c10::toString(dtype);
    const at::Tensor input = at::ones({2, 8, 5, 6}, layer->weight.options());
    const at::NoGradGuard no_grad;
    EXPECT_EQ(is_channels_last(layer->forward(input)), dtype != at::kFloat) << c10::toString(dtype);
  }
}

}  // namespace
}  // namespace prefusion::nn

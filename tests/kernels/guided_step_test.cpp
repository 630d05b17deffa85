#include "kernels/guided_step/guided_step.h"

#include <ATen/ATen.h>

#include <vector>

#include "core/error.h"
#include "kernels/guided_step/guided_step_packets.h"
#include "tests/kernels/device_test.h"
#include "tests/kernels/exactness.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::relative_error;

constexpr LinearStep kStep{.keep = 0.93, .move = -0.21};
constexpr double kScale = 7.5;

GuidedStep composed(const at::Tensor& both, const at::Tensor& sample) {
  const auto halves = both.chunk(2);
  const at::Tensor guided = halves[0] + kScale * (halves[1] - halves[0]);
  return {guided, kStep.keep * sample + kStep.move * guided};
}

class GuidedStepTest : public tests::DeviceTest {
 protected:
  at::Tensor random(std::vector<int64_t> shape, at::ScalarType dtype) const {
    return at::randn(shape, at::kDouble).to(device(), dtype);
  }
};

TEST_P(GuidedStepTest, IsAsExactAsAtenForEveryDtypeAndShape) {
  at::manual_seed(1);
  const std::vector<std::vector<int64_t>> shapes = {{1, 1, 1, 1}, {1, 4, 5, 7}, {3, 4, 8, 8}, {2, 16, 33, 31}, {1, 3}};
  for (const auto& shape : shapes) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      SCOPED_TRACE(shape_text(shape) + " " + c10::toString(dtype));
      std::vector<int64_t> twice = shape;
      twice[0] *= 2;
      const at::Tensor both = random(twice, dtype), sample = random(shape, dtype);
      const GuidedStep exact = composed(both.to(at::kDouble), sample.to(at::kDouble)), theirs = composed(both, sample);
      const GuidedStep ours = guided_step(both, sample, kScale, kStep);
      const double floor = tests::rounding(dtype, 2.4e-7, 4e-16);
      for (const auto member : {&GuidedStep::guided, &GuidedStep::next}) {
        EXPECT_EQ((ours.*member).scalar_type(), dtype);
        EXPECT_LE(relative_error(ours.*member, exact.*member),
                  std::max(floor, 2 * relative_error(theirs.*member, exact.*member)));
      }
    }
  }
}

TEST_P(GuidedStepTest, TakesAnyOrderInMemory) {
  at::manual_seed(2);
  const at::Tensor both = random({4, 6, 5, 8}, at::kFloat), sample = random({2, 6, 5, 8}, at::kFloat);
  const GuidedStep expected = guided_step(both, sample, kScale, kStep);
  const auto channels_last = [](const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); };
  const at::Tensor strided = at::cat({both, both}, 1).slice(1, 0, 6);
  for (const at::Tensor& b : {channels_last(both), strided}) {
    for (const at::Tensor& s : {sample, channels_last(sample)}) {
      const GuidedStep found = guided_step(b, s, kScale, kStep);
      EXPECT_TRUE(at::equal(found.guided, expected.guided));
      EXPECT_TRUE(at::equal(found.next, expected.next));
    }
  }
  EXPECT_TRUE(
      guided_step(channels_last(both), sample, kScale, kStep).next.is_contiguous(at::MemoryFormat::ChannelsLast));
  // A place in memory that no packet begins at.
  at::Tensor shifted = at::empty({sample.numel() + 1}, sample.options()).slice(0, 1).view_as(sample);
  shifted.copy_(sample);
  EXPECT_TRUE(at::equal(guided_step(both, shifted, kScale, kStep).next, expected.next));
}

TEST_P(GuidedStepTest, AnEmptyBatchIsEmpty) {
  const GuidedStep found = guided_step(random({0, 4, 2, 2}, at::kFloat), random({0, 4, 2, 2}, at::kFloat), 2, kStep);
  EXPECT_EQ(found.next.sizes(), at::IntArrayRef({0, 4, 2, 2}));
}

TEST_P(GuidedStepTest, RefusesWhatDoesNotFit) {
  const at::Tensor both = random({4, 2, 3, 3}, at::kFloat), sample = random({2, 2, 3, 3}, at::kFloat);
  EXPECT_THROW(guided_step(both, both, 2, kStep), Error);
  EXPECT_THROW(guided_step(both, sample.to(at::kDouble), 2, kStep), Error);
  EXPECT_THROW(guided_step(both, random({2, 2, 3, 4}, at::kFloat), 2, kStep), Error);
  EXPECT_THROW(guided_step(both.to(at::kInt), sample.to(at::kInt), 2, kStep), Error);
  EXPECT_THROW(guided_step(both, sample.detach().requires_grad_(), 2, kStep), Error);
}

INSTANTIATE_TEST_SUITE_P(Devices, GuidedStepTest, testing::Values("cpu", "cuda"), tests::device_name);

TEST(GuidedStepPackets, PacketsOfAnySizeAreSingleElements) {
  at::manual_seed(3);
  const at::Tensor both = at::randn({2, 64}).to(at::kBFloat16), sample = at::randn({1, 64}).to(at::kBFloat16);
  constexpr int kSize = kPacketSize<at::BFloat16>;
  std::vector<at::Tensor> results;
  for (const int size : {1, kSize}) {
    const at::Tensor guided = at::empty_like(sample), next = at::empty_like(sample);
    const GuidedStepPackets<at::BFloat16, float> packets{.both = both.const_data_ptr<at::BFloat16>(),
                                                         .sample = sample.const_data_ptr<at::BFloat16>(),
                                                         .guided = guided.mutable_data_ptr<at::BFloat16>(),
                                                         .next = next.mutable_data_ptr<at::BFloat16>(),
                                                         .count = 64,
                                                         .numbers = {kScale, kStep.keep, kStep.move}};
    for (int64_t i = 0; i < 64 / size; ++i) size == 1 ? packets.compute<1>(i) : packets.compute<kSize>(i);
    EXPECT_LE(relative_error(guided, composed(both.to(at::kDouble), sample.to(at::kDouble)).guided), 4e-3);
    EXPECT_LE(relative_error(next, composed(both.to(at::kDouble), sample.to(at::kDouble)).next), 4e-3);
    results.insert(results.end(), {guided, next});
  }
  EXPECT_TRUE(at::equal(results[0], results[2]));
  EXPECT_TRUE(at::equal(results[1], results[3]));
}

}  // namespace
}  // namespace prefusion::kernels

#include "core/device.h"

#include <ATen/ATen.h>

#include <future>

#include "core/side_stream.h"
#include "tests/kernels/device_test.h"

namespace prefusion {
namespace {

class ToDevice : public tests::DeviceTest {};

TEST_P(ToDevice, BringsValuesInWhateverLayout) {
  const at::Tensor values = at::randn({4, 6});
  for (const at::Tensor& tensor :
       {values, values.t(), values.slice(1, 1, 5, 2), at::empty({0, 3}), values.to(at::kLong)}) {
    const at::Tensor brought = to_device(tensor, device());
    EXPECT_EQ(brought.device().type(), device().type());
    EXPECT_TRUE(at::equal(brought.cpu(), tensor));
  }
}

// The copy is on its way when the call returns: what becomes of the tensor then must not matter.
TEST(ToDeviceCuda, IsOfTheValuesAtTheCall) {
  const std::string reason = tests::skip_reason("cuda");
  if (!reason.empty()) GTEST_SKIP() << reason;
  at::Tensor values = at::full({1 << 20}, 3.0);
  const at::Tensor brought = to_device(values, at::kCUDA);
  values.fill_(4.0);
  EXPECT_TRUE(at::equal(brought.cpu(), at::full({1 << 20}, 3.0)));
}

INSTANTIATE_TEST_SUITE_P(Devices, ToDevice, testing::Values("cpu", "cuda"), tests::device_name);

class SideStreamTest : public tests::DeviceTest {};

TEST_P(SideStreamTest, WorkSeesWhatWasGivenBefore) {
  const SideStream side(device());
  std::vector<std::future<at::Tensor>> results;
  at::Tensor sum = at::zeros({1 << 18}, device());
  for (int i = 0; i < 20; ++i) {
    sum = sum + 1;
    results.push_back(std::async(std::launch::async, side.beside([sum] { return (sum * 2).cpu(); })));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_TRUE(at::equal(results[i].get(), at::full({1 << 18}, 2.0 * static_cast<double>(i + 1)))) << i;
  }
}

TEST_P(SideStreamTest, ErrorsComeToWhoeverTakesTheResult) {
  const SideStream side(device());
  const auto make = [&] {
    return std::async(std::launch::async, side.beside([]() -> at::Tensor { throw std::runtime_error("no picture"); }))
        .get();
  };
  EXPECT_THROW(make(), std::runtime_error);
}

INSTANTIATE_TEST_SUITE_P(Devices, SideStreamTest, testing::Values("cpu", "cuda"), tests::device_name);

TEST(SideStreamOnTheCpu, WorkIsDoneAtOnce) {
  int times = 0;
  const auto result = SideStream(at::kCPU).beside([&] { return at::full({}, ++times); });
  EXPECT_EQ(times, 1);
  EXPECT_EQ(result().item<int>(), 1);
  EXPECT_EQ(times, 1);
}

}  // namespace
}  // namespace prefusion

#include "kernels/device_name.h"

#include <gtest/gtest.h>

namespace prefusion::kernels {
namespace {

TEST(PeakFlops, IsOfTheDataSheetInHalfPrecisionAndUnknownElsewhere) {
  EXPECT_EQ(peak_flops("NVIDIA H200", at::kBFloat16), 989e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 PCIe", at::kHalf), 756e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", at::kHalf), 989e12);
  EXPECT_EQ(peak_flops("NVIDIA L40S", at::kHalf), 362e12);
  EXPECT_EQ(peak_flops("NVIDIA H200", at::kFloat), 0);
  EXPECT_EQ(peak_flops(device_name(at::kCPU), at::kBFloat16), 0);
  EXPECT_EQ(device_name(at::kCPU), "cpu");
}

}  // namespace
}  // namespace prefusion::kernels

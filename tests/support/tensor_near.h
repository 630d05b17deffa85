#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace prefusion::tests {

// Largest absolute difference over the largest absolute expected value, in fp64. Infinite when shapes differ or a value
// is not finite on one side only.
inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  if (!found.defined() || !expected.defined() || found.sizes() != expected.sizes()) return INFINITY;
  if (expected.numel() == 0) return 0.0;
  const at::Tensor a = found.detach().cpu().to(at::kDouble);
  const at::Tensor b = expected.detach().cpu().to(at::kDouble);
  const double difference = (a - b).abs().max().item<double>();
  if (std::isnan(difference)) return INFINITY;
  const double scale = b.abs().max().item<double>();
  return scale > 0 ? difference / scale : difference;
}

// For EXPECT_TRUE: says the error and the shapes when it is too large.
inline testing::AssertionResult near(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  const double error = relative_error(found, expected);
  if (error <= tolerance) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "relative error " << error << " > " << tolerance << ", found shape "
                                     << (found.defined() ? found.sizes() : at::IntArrayRef()) << ", expected shape "
                                     << (expected.defined() ? expected.sizes() : at::IntArrayRef());
}

}  // namespace prefusion::tests

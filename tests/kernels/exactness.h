#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

// What tests of several operations compare by.
namespace prefusion::tests {

// The rounding of a dtype, for results of few operations; of fp32 and fp64 as much as long sums need.
inline double rounding(at::ScalarType dtype, double of_fp32, double of_fp64) {
  switch (dtype) {
    case at::kBFloat16: return 4e-3;
    case at::kHalf: return 5e-4;
    case at::kDouble: return of_fp64;
    default: return of_fp32;
  }
}

inline void expect_equal(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(found[i], expected[i])) << "result " << i;
}

}  // namespace prefusion::tests

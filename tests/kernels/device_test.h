#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

namespace prefusion::tests {

// The reason why tests on `device` cannot run here, or empty.
inline std::string skip_reason(const std::string& device) {
  if (device == "cpu") return "";
#ifndef PREFUSION_HAS_CUDA
  return "built without nvcc";
#else
  return at::hasCUDA() ? "" : "no CUDA device on this machine";
#endif
}

// A test that runs once a device; GPU cases are skipped with a reason where there is none.
class DeviceTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string reason = skip_reason(GetParam());
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
  at::Device device() const { return at::Device(GetParam()); }
};

inline std::string device_name(const testing::TestParamInfo<const char*>& info) {
  return info.param;
}

}  // namespace prefusion::tests

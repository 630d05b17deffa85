#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/error.h"

namespace prefusion::tests {

// The message of the input error that `action` throws, or "nothing was thrown".
inline std::string input_error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kInput) << error.what();
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace prefusion::tests

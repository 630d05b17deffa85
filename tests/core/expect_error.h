#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"

namespace prefusion::tests {

// The one-line message of the Error of that class which `call` throws; fails the test otherwise.
template <typename Call>
std::string error_message(ErrorClass expected, Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), expected) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

// Passes when `text` holds `part`.
inline testing::AssertionResult mentions(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << part << "' is not in: " << text;
}

}  // namespace prefusion::tests

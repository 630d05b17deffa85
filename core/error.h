#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace prefusion {

// What kind of trouble an error is; the value is the exit code of the program.
enum class ErrorClass {
  kUsage = 2,  // the command line or a config value is wrong
  kInput = 3,  // an input file is missing, corrupt or does not fit
  kRun = 4,    // the run failed: not finite, out of memory, disk full
};

// The one exception type of prefusion. The message is a single line: what, where, expected, found, what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorClass error_class, const std::string& message) : std::runtime_error(message), class_(error_class) {}
  ErrorClass error_class() const { return class_; }
  int exit_code() const { return static_cast<int>(class_); }

 private:
  ErrorClass class_;
};

// Joins its arguments with operator<<.
template <typename... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

template <typename... Args>
[[noreturn]] void fail_usage(const Args&... args) {
  throw Error(ErrorClass::kUsage, concat(args...));
}

template <typename... Args>
[[noreturn]] void fail_input(const Args&... args) {
  throw Error(ErrorClass::kInput, concat(args...));
}

template <typename... Args>
[[noreturn]] void fail_run(const Args&... args) {
  throw Error(ErrorClass::kRun, concat(args...));
}

// Throws a usage, input or run error unless the condition holds. The message is only built on failure.
template <typename... Args>
void check_usage(bool condition, const Args&... args) {
  if (!condition) fail_usage(args...);
}

template <typename... Args>
void check_input(bool condition, const Args&... args) {
  if (!condition) fail_input(args...);
}

template <typename... Args>
void check_run(bool condition, const Args&... args) {
  if (!condition) fail_run(args...);
}

// "[2, 3, 4]" for messages about shapes; takes anything that iterates over numbers.
template <typename Sizes>
std::string shape_text(const Sizes& sizes) {
  std::ostringstream out;
  out << '[';
  const char* separator = "";
  for (const auto& size : sizes) {
    out << separator << size;
    separator = ", ";
  }
  out << ']';
  return out.str();
}

}  // namespace prefusion

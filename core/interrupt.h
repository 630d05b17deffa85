#pragma once

#include <stdexcept>

namespace prefusion {

// Thrown by whoever has saved what is to be saved after SIGINT or SIGTERM; the exit code is 128 + the signal.
class Interrupted : public std::runtime_error {
 public:
  explicit Interrupted(int signal) : std::runtime_error("interrupted"), signal_(signal) {}
  int exit_code() const { return 128 + signal_; }

 private:
  int signal_;
};

// From now on SIGINT and SIGTERM only set a flag; a second one ends the program at once.
void install_interrupt_handlers();

// The signal received so far, or 0.
int pending_interrupt();

// Throws Interrupted when a signal has arrived: for loops that have nothing to save.
void throw_if_interrupted();

}  // namespace prefusion

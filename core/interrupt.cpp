#include "core/interrupt.h"

#include <csignal>

namespace prefusion {
namespace {

volatile std::sig_atomic_t received = 0;

void on_signal(int signal) {
  if (received) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  received = signal;
}

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int pending_interrupt() {
  return received;
}

void throw_if_interrupted() {
  if (received) throw Interrupted(received);
}

}  // namespace prefusion

#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace prefusion {

// "1h02m", "3m20s", "12s".
std::string duration_text(double seconds);

// A progress line on stderr with rate and remaining time. On a terminal it redraws itself; otherwise it prints a plain
// line now and then. Silent when made with enabled = false.
class Progress {
 public:
  // `unit` names what is counted ("step", "image"); total 0 means unknown.
  Progress(std::string title, int64_t total, std::string unit, bool enabled = true);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of the total so far; `note` is shown at the end of the line (loss, accuracy ...).
  void update(int64_t done, const std::string& note = "");

  // Work that was already done before this run (resumed), not counted in the rate.
  void set_start(int64_t done) { start_ = done; }

 private:
  using Clock = std::chrono::steady_clock;
  void draw(int64_t done, const std::string& note);

  std::string title_;
  int64_t total_;
  std::string unit_;
  bool enabled_;
  bool is_terminal_;
  int64_t start_ = 0;
  int64_t last_done_ = -1;
  std::string last_note_;
  bool drawn_last_ = true;
  Clock::time_point began_;
  Clock::time_point last_drawn_;
};

}  // namespace prefusion

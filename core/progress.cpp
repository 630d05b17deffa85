#include "core/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace prefusion {
namespace {

constexpr double kTerminalInterval = 0.1;  // seconds between redraws
constexpr double kPlainInterval = 10.0;    // seconds between lines when stderr is a file

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  char text[32];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%lldh%02lldm", static_cast<long long>(whole / 3600),
                  static_cast<long long>(whole % 3600 / 60));
  } else if (whole >= 60) {
    std::snprintf(text, sizeof text, "%lldm%02llds", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  } else {
    std::snprintf(text, sizeof text, "%llds", static_cast<long long>(whole));
  }
  return text;
}

Progress::Progress(std::string title, int64_t total, std::string unit, bool enabled)
    : title_(std::move(title)),
      total_(total),
      unit_(std::move(unit)),
      enabled_(enabled),
      is_terminal_(isatty(STDERR_FILENO)),
      began_(Clock::now()),
      last_drawn_(began_ - std::chrono::hours(1)) {}

Progress::~Progress() {
  if (!enabled_ || last_done_ < 0) return;
  if (!drawn_last_) draw(last_done_, last_note_);
  if (is_terminal_) std::fputc('\n', stderr);
}

void Progress::update(int64_t done, const std::string& note) {
  last_done_ = done;
  last_note_ = note;
  if (!enabled_) return;
  const double since = std::chrono::duration<double>(Clock::now() - last_drawn_).count();
  drawn_last_ = since >= (is_terminal_ ? kTerminalInterval : kPlainInterval);
  if (drawn_last_) draw(done, note);
}

void Progress::draw(int64_t done, const std::string& note) {
  last_drawn_ = Clock::now();
  const double elapsed = std::chrono::duration<double>(last_drawn_ - began_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done - start_) / elapsed : 0;
  char speed[48];
  if (rate >= 1 || rate <= 0) {
    std::snprintf(speed, sizeof speed, "%.1f %ss/s", rate, unit_.c_str());
  } else {
    std::snprintf(speed, sizeof speed, "%.2f s/%s", 1 / rate, unit_.c_str());
  }
  std::string line = concat(title_, " ", done);
  if (total_ > 0) line += concat("/", total_);
  line += concat(", ", speed);
  if (total_ > 0 && rate > 0) line += concat(", ", duration_text(static_cast<double>(total_ - done) / rate), " left");
  if (!note.empty()) line += ", " + note;
  std::fprintf(stderr, is_terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
}

}  // namespace prefusion

#include "training/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace prefusion::training {

LrScheduleKind parse_lr_schedule(const std::string& name) {
  if (name == "constant") return LrScheduleKind::kConstant;
  if (name == "linear") return LrScheduleKind::kLinear;
  if (name == "cosine") return LrScheduleKind::kCosine;
  fail_usage("--lr-schedule ", name, ": expected constant, linear or cosine");
}

double lr_factor(LrScheduleKind kind, int64_t step, int64_t warmup, int64_t total) {
  if (step < warmup) return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup));
  const auto falling = static_cast<double>(std::max<int64_t>(1, total - warmup));
  const double progress = static_cast<double>(step - warmup) / falling;
  switch (kind) {
    case LrScheduleKind::kConstant: return 1.0;
    case LrScheduleKind::kLinear: return std::max(0.0, static_cast<double>(total - step) / falling);
    case LrScheduleKind::kCosine: return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
  }
  return 1.0;
}

}  // namespace prefusion::training

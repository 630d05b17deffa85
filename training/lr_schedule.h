#pragma once

#include <cstdint>
#include <string>

namespace prefusion::training {

enum class LrScheduleKind { kConstant, kLinear, kCosine };

// "constant", "linear" (to zero), "cosine" (to zero); usage error otherwise.
LrScheduleKind parse_lr_schedule(const std::string& name);

// The factor on the learning rate for optimizer step `step` (0-based) of `total`: rises linearly over `warmup` steps,
// then follows the schedule, as transformers' get_*_schedule_with_warmup.
double lr_factor(LrScheduleKind kind, int64_t step, int64_t warmup, int64_t total);

}  // namespace prefusion::training

#pragma once

#include <cstdint>
#include <string>

namespace prefusion::training {

enum class ReferenceKind { kNone, kFrozen, kAdapterOff, kEma, kRefresh, kExtrapolated, kCached };

// What --reference says.
struct ReferenceSpec {
  ReferenceKind kind = ReferenceKind::kNone;
  double decay = 0;   // ema: reference = decay * reference + (1 - decay) * policy after every step
  int64_t every = 0;  // refresh: steps between refreshes
  double mix = 1;     // refresh: reference = mix * policy + (1 - mix) * reference; 1 is a hard refresh
  double factor = 0;  // extrapolated: reference = start + factor * (policy - start) after every step

  // Whether the reference changes during the run, so that its errors cannot be kept.
  bool moves() const {
    return kind == ReferenceKind::kEma || kind == ReferenceKind::kRefresh || kind == ReferenceKind::kExtrapolated;
  }
};

// "none", "frozen", "adapter-off", "ema:DECAY", "refresh:N", "refresh:N:MIX", "extrapolated:A" or "cached". Usage error
// for anything else, and for a number outside its range (0 <= DECAY < 1, N >= 1, 0 < MIX <= 1, -1 <= A < 1).
ReferenceSpec parse_reference(const std::string& text);

}  // namespace prefusion::training
